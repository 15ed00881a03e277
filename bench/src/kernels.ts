/**
 * Builds native/bench/kernels_bench.cc and runs it: GB/s of every reduction kernel on one thread, for each kind of
 * vectors that this CPU has, beside memcpy. The kernels aren't called from JavaScript, so it isn't in between here.
 *
 *   npm run bench -- kernels [--bytes 524288] [--last]
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const FOLDER = "build/native-bench";

function run(program: string, ...args: readonly string[]): void {
  execFileSync(program, args, { cwd: ROOT, stdio: "inherit" });
}

run("cmake", "-S", "native", "-B", FOLDER, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DPCCL_BENCH=ON");
run("cmake", "--build", FOLDER, "--parallel", "2", "--target", "kernels_bench");
run(`${FOLDER}/kernels_bench`, ...process.argv.slice(2));

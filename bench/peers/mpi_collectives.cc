// Collectives of an MPI, with f32: all-reduce sums in place; all-to-all sends BYTES from each rank, in equal blocks;
// all-to-all-v sends a share SKEW of them to rank 0, and the rest in equal parts to the others.
//
//   mpirun -n PEERS mpi_collectives all-reduce|all-to-all BYTES
//   mpirun -n PEERS mpi_collectives all-to-all-v BYTES SKEW
#include <mpi.h>

#include <numeric>
#include <string>

#include "measure.h"

namespace {

struct Blocks {
  std::vector<int> counts;
  std::vector<int> offsets;

  explicit Blocks(std::vector<int> lengths) : counts(std::move(lengths)), offsets(counts.size()) {
    std::exclusive_scan(counts.begin(), counts.end(), offsets.begin(), 0);
  }

  std::size_t total() const { return static_cast<std::size_t>(offsets.back() + counts.back()); }
};

// As in packages/pccl-core/src/bench/work.ts.
std::vector<int> counts_of(int count, int size, double skew) {
  const int first = static_cast<int>(std::lround(count * skew));
  const int each = size > 1 ? (count - first) / (size - 1) : 0;
  const int left = count - first - each * (size - 1);
  std::vector<int> counts{first};
  for (int rank = 1; rank < size; ++rank) counts.push_back(each + (rank <= left ? 1 : 0));
  return counts;
}

void max_over_ranks(double* values, std::size_t count) {
  MPI_Allreduce(MPI_IN_PLACE, values, static_cast<int>(count), MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
}

void all_reduce(int rank, int size, int count) {
  std::vector<float> data(static_cast<std::size_t>(count));
  const auto run = [&] { MPI_Allreduce(MPI_IN_PLACE, data.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); };
  peers::fill(data.data(), data.size(), static_cast<std::uint32_t>(rank));
  run();
  peers::check_sum(data.data(), data.size(), static_cast<std::uint32_t>(size));
  std::fill(data.begin(), data.end(), 0.0f);
  peers::measure(rank, run, max_over_ranks);
}

void all_to_all(int rank, int size, int count, bool with_counts, double skew) {
  const Blocks out(counts_of(count, size, skew));
  const Blocks in(std::vector<int>(static_cast<std::size_t>(size), out.counts[static_cast<std::size_t>(rank)]));
  std::vector<float> send(out.total());
  std::vector<float> recv(in.total());
  const auto run = [&] {
    if (with_counts) {
      MPI_Alltoallv(send.data(), out.counts.data(), out.offsets.data(), MPI_FLOAT, recv.data(), in.counts.data(),
                    in.offsets.data(), MPI_FLOAT, MPI_COMM_WORLD);
    } else {
      MPI_Alltoall(send.data(), count / size, MPI_FLOAT, recv.data(), count / size, MPI_FLOAT, MPI_COMM_WORLD);
    }
  };
  for (int to = 0; to < size; ++to) {
    const auto i = static_cast<std::size_t>(to);
    peers::fill(send.data() + out.offsets[i], static_cast<std::size_t>(out.counts[i]),
                static_cast<std::uint32_t>(rank * size + to));
  }
  run();
  for (int from = 0; from < size; ++from) {
    const auto i = static_cast<std::size_t>(from);
    peers::check(recv.data() + in.offsets[i], static_cast<std::size_t>(in.counts[i]),
                 static_cast<std::uint32_t>(from * size + rank));
  }
  peers::measure(rank, run, max_over_ranks);
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const std::string collective = argc > 1 ? argv[1] : "";
  const int count = argc > 2 ? static_cast<int>(std::strtoull(argv[2], nullptr, 10) / sizeof(float)) / size * size : 0;
  const bool with_counts = collective == "all-to-all-v";
  const double skew = argc > 3 ? std::strtod(argv[3], nullptr) : 1.0 / size;
  if (count > 0 && collective == "all-reduce" && argc == 3) {
    all_reduce(rank, size, count);
  } else if (count > 0 && ((collective == "all-to-all" && argc == 3) || (with_counts && argc == 4))) {
    all_to_all(rank, size, count, with_counts, skew);
  } else {
    if (rank == 0) std::fprintf(stderr, "usage: %s all-reduce|all-to-all|all-to-all-v BYTES [SKEW]\n", argv[0]);
    MPI_Abort(MPI_COMM_WORLD, 2);
  }
  MPI_Finalize();
  return 0;
}

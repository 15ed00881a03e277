/** Checks on a report in ctest's form that no outcome is lost or counted as another. */
import { expect, it } from "vitest";
import { countsOfCtest } from "./lib/test-step.mjs";

const REPORT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="(empty)" tests="5" failures="2" disabled="1" skipped="1">
	<testcase name="Ring.passes" classname="Ring.passes" time="0.002" status="run">
		<system-out>[       OK ] Ring.passes (0 ms)
</system-out>
	</testcase>
	<testcase name="Ring.fails" classname="Ring.fails" time="0.003" status="fail">
		<failure message=""/>
		<system-out>ring_test.cc:3: Failure
[  FAILED  ] Ring.fails (0 ms)
</system-out>
	</testcase>
	<testcase name="Ring.never_ends" classname="Ring.never_ends" time="120" status="fail">
		<failure message="Timeout"/>
		<system-out></system-out>
	</testcase>
	<testcase name="Hash.skips/&lt;f32&gt;" classname="Hash.skips" time="0.002" status="notrun">
		<skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/>
		<system-out>[ RUN      ] Hash.skips
hash_test.cc:2: Skipped
no &lt;golden&gt; data &amp; no network
[  SKIPPED ] Hash.skips (0 ms)
[  SKIPPED ] 1 test, listed below:
</system-out>
	</testcase>
	<testcase name="Hash.missing" classname="Hash.missing" time="0" status="notrun">
		<failure message="Unable to find executable: hash_test"/>
	</testcase>
	<testcase name="Hash.off" classname="Hash.off" time="0" status="disabled">
		<system-out>Disabled</system-out>
	</testcase>
</testsuite>
`;

it("counts passed, failed, timed out, missing, skipped and disabled native tests", () => {
  expect(countsOfCtest(REPORT)).toEqual({
    passed: 1,
    failed: 3,
    skipped: [
      { name: "Hash.skips/<f32>", reason: "no <golden> data & no network" },
      { name: "Hash.off", reason: "disabled in the source" },
    ],
  });
});

/** The forms of a profile's report, on numbers that are easy to check by hand. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { reportHtml } from "../../cli/profile_html.ts";
import { reportJson } from "../../cli/profile_report.ts";
import { reportCsv, reportMarkdown, reportText } from "../../cli/profile_tables.ts";
import { reportTrace } from "../../cli/profile_trace.ts";
import { exampleReport } from "../support/profile_report.ts";

const TIMED = exampleReport({ hasTimestamps: true });
const UNTIMED = exampleReport({ hasTimestamps: false });

Deno.test("a report without timestamps says so in one line and gives wall times", () => {
  assertEquals(
    reportText(UNTIMED),
    `adapter   an adapter; readback awaited
kernels   not timed: the adapter grants no timestamps
model     a, model; seed 3
times     medians of 3
compile   recording 30 ms; first runs took longer by: pp10 7 ms, tg4 7 ms

test              ms       tokens/s
pp10  20.000 ± 4.000  513.9 ± 104.9
tg4   20.000 ± 4.000    51.4 ± 10.5

prefill   a prompt of 10 tokens

decode    one token, mean of 4 steps from 10 tokens on
`,
  );
  const { prefill } = reportJson(UNTIMED) as { prefill: Record<string, unknown> };
  assertEquals([prefill.wall_milliseconds, prefill.kernels, prefill.parts], [20, undefined, undefined]);
  assertEquals(reportTrace(UNTIMED).traceEvents, []);
});

Deno.test("a table of kernels adds up to the wall time and compares with the ceilings", () => {
  // 16 MFLOP in 8 ms are 2 of 4 GFLOP/s; 4 MB in 8 ms 0.5 of 2 GB/s: the product is half way to its roof.
  assertStringIncludes(
    reportText(TIMED),
    `prefill   a prompt of 10 tokens

  kernel              calls      ms    share  GFLOP/s  GB/s  of ceiling
  matmul product          2   8.000   40.0 %      2.0   0.5      50.0 %
  gate <forward>          1   1.000    5.0 %                           
  in kernels              3   9.000   45.0 %                           
  outside of kernels         11.000   55.0 %                           
  wall time                  20.000  100.0 %                           

  part            calls     ms   share  GFLOP/s  GB/s  of ceiling  rows
  first layers        2  5.000  25.0 %                             2.50
  head, backward      1  4.000  20.0 %      2.0   0.5      50.0 %      
`,
  );
  assertStringIncludes(reportText(TIMED), "  depth  steps  ms in kernels\n  2          4          9.000\n");
});

Deno.test("a report in Markdown has the same tables", () => {
  const text = reportMarkdown(TIMED);
  assertStringIncludes(text, "### pp10: a prompt of 10 tokens\n");
  assertStringIncludes(text, "| matmul product | 2 | 8.000 | 40.0 % | 2.0 | 0.5 | 50.0 % |\n");
  assertStringIncludes(text, "| depth | steps | ms in kernels |\n| --- | ---: | ---: |\n| 2 | 4 | 9.000 |\n");
});

Deno.test("a report as CSV quotes what needs it and leaves empty what is not known", () => {
  assertEquals(
    reportCsv(TIMED).split("\n").slice(0, 6),
    [
      "model,test,kind,name,calls,milliseconds,share,flops,bytes,of_ceiling",
      '"a, model",pp10,wall,,1,20,1,,,',
      '"a, model",pp10,kernel,matmul product,2,8,0.4,16000000,4000000,0.5',
      '"a, model",pp10,kernel,gate <forward>,1,1,0.05,,,',
      '"a, model",pp10,part,first layers,2,5,0.25,,,',
      '"a, model",pp10,part,"head, backward",1,4,0.2,8000000,2000000,0.5',
    ],
  );
});

Deno.test("a trace has a process for each kind of work, with its parts and its kernels", () => {
  const { traceEvents } = reportTrace(TIMED) as { traceEvents: Record<string, unknown>[] };
  const spans = traceEvents.filter(({ ph, pid }) => ph === "X" && pid === 1);
  assertEquals(spans.map(({ name, tid, ts, dur }) => [name, tid, ts, dur]), [
    ["first layers", 1, 0, 6000],
    ["head, backward", 1, 7000, 4000],
    ["matmul product", 2, 0, 4000],
    ["gate <forward>", 2, 5000, 1000],
    ["matmul product", 2, 7000, 4000],
  ]);
  const names = traceEvents.filter(({ name }) => name === "process_name");
  assertEquals(names.map(({ pid, args }) => [pid, args]), [[1, { name: "pp10" }], [2, { name: "tg4" }]]);
  assertEquals(spans[2]!.args, { rows: 10, flops: 8e6, bytes: 2e6 });
});

Deno.test("a page holds its pictures and tables, loads nothing, and takes no name for markup", () => {
  const page = reportHtml({ ...TIMED, model: "<script>alert(1)</script>" });
  assertEquals(page.match(/<figure>/g)!.length, 4);
  assertEquals(page.match(/<table>/g)!.length, 1 + 2 + 3);
  assertEquals(/<script|<link|<img|src=|url\(|@import/.test(page), false);
  for (
    const text of [
      "gate &lt;forward&gt;",
      "&lt;script&gt;alert(1)",
      "FLOPs per byte",
      "head, backward: 4.000 ms",
    ]
  ) {
    assertStringIncludes(page, text);
  }
  const plain = reportHtml(UNTIMED);
  assertEquals([plain.includes("<figure>"), plain.includes("<table>")], [false, true]);
});

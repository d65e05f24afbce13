import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { DataError } from "../../../model/text/documents.ts";
import { type PromptLine, readPromptLines } from "../../../model/text/prompt_lines.ts";
import { folderTest } from "../../support/program.ts";

async function read(folder: string, text: string): Promise<PromptLine[]> {
  const path = join(folder, "prompts.jsonl");
  await Deno.writeTextFile(path, text);
  return await readPromptLines(path);
}

folderTest("prompts are read line by line, with their settings and what else they bring", async (folder) => {
  const lines = [
    { prompt: "one" },
    {
      ...{
        prompt: "two",
        id: 7,
        count: 5,
        temperature: 0,
        top_k: 3,
        top_p: 0.5,
        min_p: 0.1,
        repeat_penalty: 1.2,
      },
      ...{ stop: ["a", "b"], seed: 9, system: "Be brief.", tags: ["x"] },
    },
    { prompt: "", stop: "." },
  ];
  const text = lines.map((line) => JSON.stringify(line)).join("\n\n");
  assertEquals(await read(folder, `\uFEFF${text}\r\n`), [
    { prompt: "one", index: 0, extra: {} },
    {
      ...{ prompt: "two", count: 5, temperature: 0, topK: 3, topP: 0.5, minP: 0.1, repeatPenalty: 1.2 },
      ...{ stop: ["a", "b"], seed: 9, system: "Be brief." },
      index: 1,
      extra: { id: 7, tags: ["x"] },
    },
    { prompt: "", stop: ".", index: 2, extra: {} },
  ]);
});

const refused: Readonly<Record<string, readonly [line: string, part: string]>> = {
  "a file without prompts": ["\n\n", "there is no prompt in it"],
  "a line that is not JSON": ['{"prompt": "a"}\n{"prompt"', "prompts.jsonl:2: the line is not JSON"],
  "a line that is no object": ['"Call me"', "the line is not an object"],
  "a line without a prompt": ['{"id": 1}', '"prompt" is missing'],
  "a prompt that is no text": ['{"prompt": 3}', '"prompt" is 3'],
  "a setting beyond its range": ['{"prompt": "a", "top_p": 1.5}', '"top_p" is 1.5'],
  "a negative count": ['{"prompt": "a", "count": -1}', '"count" is -1'],
  "an empty stop string": ['{"prompt": "a", "stop": [""]}', '"stop" is [""]'],
  "a seed of more than 32 bits": ['{"prompt": "a", "seed": 4294967296}', '"seed" is 4294967296'],
  "a misspelled setting": [
    '{"prompt": "a", "temperatur": 0}',
    '"temperatur" is no setting; "temperature" is one',
  ],
  "a field said twice": ['{"prompt": "a", "prompt": "b"}', 'the field "prompt" twice'],
  "a field of the results": ['{"prompt": "a", "text": "b"}', '"text" is a field of the results'],
};

for (const [name, [text, part]] of Object.entries(refused)) {
  folderTest(`${name} is refused`, async (folder) => {
    await assertRejects(() => read(folder, text), DataError, part);
  });
}

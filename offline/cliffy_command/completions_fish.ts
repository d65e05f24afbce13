/** Completions for fish. */
import { type CommandWords, type FlagWords, functionName } from "./completion_words.ts";

/** Text in single quotes, as fish reads them. */
function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

function flagLine({ flags, description, value }: FlagWords): string {
  const names = flags.map((flag) => flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`);
  // -r wants a value, -F offers files for it, -x wants one and offers none.
  const values = { none: [], file: ["-r -F"], text: ["-x"] }[value];
  return [...names, ...values, `-d ${quoted(description)}`].join(" ");
}

/** The script that `NAME completions fish | source` reads. */
export function fishScript(commands: readonly CommandWords[], name: string): string {
  const isAt = `_${functionName(name)}_at`;
  const lines = commands.flatMap((command) => {
    const start = `complete -c ${name} -n ${quoted(`${isAt} ${quoted(command.path)}`)}`;
    return [
      ...command.commands.map((child) => `${start} -a ${child.name} -d ${quoted(child.description)}`),
      ...command.flags.map((flag) => `${start} ${flagLine(flag)}`),
      ...(command.takesFiles ? [`${start} -F`] : []),
    ];
  });
  return `# fish completion for ${name}
function ${isAt}
  set -l at ${quoted(name)}
  set -l words (commandline -opc)
  set -e words[1]
  for word in $words
    switch "$at $word"
      case ${commands.slice(1).map(({ path }) => quoted(path)).join(" ")}
        set at "$at $word"
    end
  end
  test "$at" = "$argv[1]"
end
complete -c ${name} -f
${lines.join("\n")}`;
}

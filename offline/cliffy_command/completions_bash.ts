/** Completions for bash, version 3.2 or later, which is what macOS has. */
import { type CommandWords, functionName, quoted } from "./completion_words.ts";

/** Flags with a value, gathered by what it is. */
function valueCases({ flags }: CommandWords): string[] {
  return ["file", "text"].flatMap((value) => {
    const names = flags.filter((flag) => flag.value === value).flatMap(({ flags: names }) => names);
    return names.length > 0 ? [`        ${names.join("|")}) kind=${value} ;;`] : [];
  });
}

function commandCase(command: CommandWords): string {
  const words = [...command.commands.map(({ name }) => name), ...command.flags.flatMap(({ flags }) => flags)];
  const cases = valueCases(command);
  return [
    `    ${quoted(command.path)})`,
    `      words=${quoted(words.join(" "))}`,
    ...(command.takesFiles ? ["      kind=both"] : []),
    ...(cases.length > 0 ? ['      case "$previous" in', ...cases, "      esac"] : []),
    "      ;;",
  ].join("\n");
}

/** The script that `source <(NAME completions bash)` reads. */
export function bashScript(commands: readonly CommandWords[], name: string): string {
  const complete = functionName(name);
  const paths = commands.slice(1).map(({ path }) => quoted(path)).join("|");
  return `# bash completion for ${name}
${complete}() {
  local current previous word at words= kind=words IFS=$' \\t\\n'
  current="\${COMP_WORDS[COMP_CWORD]}"
  previous="\${COMP_WORDS[COMP_CWORD-1]}"
  COMPREPLY=()
  at=${quoted(name)}
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$at $word" in
      ${paths}) at="$at $word" ;;
    esac
  done
  case "$at" in
${commands.map(commandCase).join("\n")}
  esac
  case "$kind:$current" in
    text:*) ;;
    words:*|both:-*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *)
      # The name of a file may hold blanks: only the end of a line ends it.
      IFS=$'\\n'
      COMPREPLY=($(compgen -f -- "$current"))
      compopt -o filenames 2>/dev/null
      ;;
  esac
  return 0
}
complete -F ${complete} ${name}`;
}

/** Completions for zsh. */
import { type CommandWords, functionName, quoted } from "./completion_words.ts";

/** `name:description`, where a colon of the name would end it. */
function described(name: string, description: string): string {
  return quoted(`${name.replaceAll(":", "\\:")}:${description}`);
}

/** Flags with a value, gathered by what it is. */
function valueCases({ flags }: CommandWords): string[] {
  return ([["file", "_files"], ["text", "_message value"]] as const).flatMap(([value, action]) => {
    const names = flags.filter((flag) => flag.value === value).flatMap(({ flags: names }) => names);
    return names.length > 0 ? [`        (${names.join("|")}) ${action}; return ;;`] : [];
  });
}

function commandCase(command: CommandWords): string {
  const cases = valueCases(command);
  const flags = command.flags.flatMap(({ flags: names, description }) =>
    names.map((flag) => described(flag, description))
  );
  const list = (title: string, items: readonly string[]): string[] => [
    `      ${title}=(`,
    ...items.map((item) => `        ${item}`),
    "      )",
  ];
  return [
    `    (${quoted(command.path)})`,
    ...(cases.length > 0 ? ['      case "$previous" in', ...cases, "      esac"] : []),
    ...list("commands", command.commands.map(({ name, description }) => described(name, description))),
    ...list("flags", flags),
    ...(command.takesFiles ? ["      takes_files=1"] : []),
    "      ;;",
  ].join("\n");
}

/** The script that `source <(NAME completions zsh)` reads, after compinit. */
export function zshScript(commands: readonly CommandWords[], name: string): string {
  const complete = functionName(name);
  const paths = commands.slice(1).map(({ path }) => quoted(path)).join("|");
  return `#compdef ${name}
# zsh completion for ${name}
${complete}() {
  local previous="\${words[CURRENT-1]}" at=${quoted(name)} word takes_files=
  local -a commands flags
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$at $word" in
      (${paths}) at="$at $word" ;;
    esac
  done
  case "$at" in
${commands.map(commandCase).join("\n")}
  esac
  if [[ "\${words[CURRENT]}" == -* ]]; then
    _describe -o flag flags
  elif [[ -n "$takes_files" ]]; then
    _files
  else
    _describe command commands
  fi
}
compdef ${complete} ${name}`;
}

/** Columns of cells as text. */

/** Side by side with two spaces between: the first column to the left of its width, the others to the right. */
export function table(
  rows: readonly (readonly string[])[],
  { indent = 0, firstWidth = 0 }: { indent?: number; firstWidth?: number } = {},
): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const line = ([name, ...cells]: readonly string[]): string =>
    [name!.padEnd(Math.max(widths[0]!, firstWidth)), ...cells.map((cell, i) => cell.padStart(widths[i + 1]!))]
      .join("  ");
  return rows.map((row) => `${" ".repeat(indent)}${line(row)}\n`).join("");
}

/**
 * Text for a message of one line, whatever names and values a damaged file has put into it: what must not reach a
 * terminal becomes a space, and of more than `most` characters those in the middle are left out.
 */
export function oneLine(text: string, { most }: { most: number }): string {
  const line = text.replaceAll(/[\s\p{Cc}]+/gu, " ");
  return line.length > most ? `${line.slice(0, most / 2)}...${line.slice(-most / 2)}` : line;
}

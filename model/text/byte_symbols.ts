/** How a byte-level BPE writes bytes in its vocabulary: as characters that can be seen. */

/**
 * GPT-2's character for each byte: the one of the same code where it shows and is no space, else U+0100 to U+0143 in
 * their order.
 */
export function byteSymbols(): string[] {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const shows = byte > 32 && byte < 127 || byte > 160 && byte !== 173;
    return String.fromCharCode(shows ? byte : 256 + others++);
  });
}

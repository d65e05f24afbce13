/** Texts of models and names in files, as a terminal may show them. */

/** All but tab and line feed, and a carriage return that ends a line. */
// deno-lint-ignore no-control-regex -- these are what is looked for
const CONTROL = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)/g;

/**
 * The text with a picture in the place of each control character, which could move the cursor, change what was shown
 * before, or make some terminals type: `␛` for escape; those above 127, which have no picture, as `\x9b`.
 */
export function showControls(text: string): string {
  return text.replaceAll(CONTROL, (character) => {
    const code = character.charCodeAt(0);
    if (code < 32) return String.fromCharCode(0x2400 + code);
    return code === 127 ? "\u2421" : `\\x${code.toString(16)}`;
  });
}

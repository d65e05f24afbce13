/** Apart from what downloads: the Hub's package takes long to load, and every command knows its errors. */

import { oneLine } from "../files/one_line.ts";

/** Characters of a message; what is longer quotes a server. */
const MAX_MESSAGE = 1000;

/** A model that cannot be downloaded. */
export class PullError extends Error {
  override readonly name = "PullError";
  /** Whether another try may succeed: the connection broke, or the server has too much to do. */
  readonly mayPass: boolean;

  constructor(message: string, { cause, mayPass = false }: { cause?: unknown; mayPass?: boolean } = {}) {
    super(oneLine(message, { most: MAX_MESSAGE }), { cause });
    this.mayPass = mayPass;
  }
}

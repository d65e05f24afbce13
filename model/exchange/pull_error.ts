/** Apart from what downloads: the Hub's package takes long to load, and every command knows its errors. */

/** A model that cannot be downloaded. */
export class PullError extends Error {
  override readonly name = "PullError";
  /** Whether another try may succeed: the connection broke, or the server has too much to do. */
  readonly mayPass: boolean;

  constructor(message: string, { cause, mayPass = false }: { cause?: unknown; mayPass?: boolean } = {}) {
    super(message, { cause });
    this.mayPass = mayPass;
  }
}

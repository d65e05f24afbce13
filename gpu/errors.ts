/** No adapter answers, or it lacks what every kernel needs. */
export class GpuUnavailableError extends Error {
  override readonly name = "GpuUnavailableError";
}

/** What went wrong on a device that had been opened. */
export type GpuErrorKind = "validation" | "out-of-memory" | "internal" | "lost" | "compile";

/** The one error for everything that a device reports later than the call that caused it. */
export class GpuError extends Error {
  override readonly name = "GpuError";
  readonly kind: GpuErrorKind;

  constructor(kind: GpuErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** More bytes were asked for than the adapter or the host can give. */
export class MemoryError extends Error {
  override readonly name = "MemoryError";
}

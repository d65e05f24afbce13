/** As much of jax-js as is used here. */

/**
 * An array on a jax-js device, or its stand-in while a function is traced. It counts its users: a function takes over
 * what it is given, so every use but the last goes through `ref`.
 */
export interface JaxArray {
  readonly ref: JaxArray;
  readonly ndim: number;
  readonly shape: number[];
  add(other: JaxArray | number): JaxArray;
  sub(other: JaxArray | number): JaxArray;
  mul(other: JaxArray | number): JaxArray;
  div(other: JaxArray | number): JaxArray;
  equal(other: JaxArray | number): JaxArray;
  sum(axis?: number | null, options?: { keepdims: boolean }): JaxArray;
  mean(axis?: number | null, options?: { keepdims: boolean }): JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  transpose(): JaxArray;
  /** Rows by their numbers. */
  slice(rows: JaxArray): JaxArray;
  dispose(): void;
  data(): Promise<ArrayLike<number>>;
}

/** Arrays by name. */
export type JaxArrays = Readonly<Record<string, JaxArray>>;

/** The module. */
export interface Jax {
  /** Backends that can be used. */
  init(backend: string): Promise<string[]>;
  defaultDevice(backend: string): string;
  blockUntilReady<T>(arrays: T): Promise<T>;
  jit<A extends unknown[], R>(f: (...args: A) => R): (...args: A) => R;
  /** By the first argument. */
  valueAndGrad<T, A extends unknown[]>(
    f: (first: T, ...rest: A) => JaxArray,
  ): (first: T, ...rest: A) => [JaxArray, T];
  readonly numpy: {
    array(data: Float32Array | Int32Array, options: { shape: readonly number[] }): JaxArray;
    zeros(shape: readonly number[]): JaxArray;
    arange(end: number): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    where(condition: JaxArray, yes: JaxArray | number, no: JaxArray | number): JaxArray;
    minimum(a: JaxArray | number, b: JaxArray | number): JaxArray;
    sqrt(x: JaxArray): JaxArray;
    square(x: JaxArray): JaxArray;
    reciprocal(x: JaxArray): JaxArray;
    split(x: JaxArray, parts: number, axis: number): JaxArray[];
    concatenate(parts: readonly JaxArray[], axis: number): JaxArray;
  };
  readonly nn: {
    oneHot(ids: JaxArray, classes: number): JaxArray;
    silu(x: JaxArray): JaxArray;
    /** All (B, T, heads, D). */
    dotProductAttention(q: JaxArray, k: JaxArray, v: JaxArray, options: { isCausal: boolean }): JaxArray;
    logsumexp(x: JaxArray, axis: number): JaxArray;
  };
}

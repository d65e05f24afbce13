/**
 * Work of programs that come with a model, such as patterns and templates, ended when it takes too long. They run on this
 * thread and never give it back, so only the engine itself can stop them; `node:vm` is its one door to that.
 */
import { createContext, Script } from "node:vm";

/** The name of the work inside the context. */
const context = createContext({ work: null as unknown });
const script = new Script("work()");

/** Work that did not end in time. */
export class TimeLimitError extends Error {
  override readonly name = "TimeLimitError";
}

/**
 * The result of work that never waits. Costs some 16 us. Time that the whole process is stopped counts.
 *
 * @throws TimeLimitError when it takes longer than `ms`; what it has changed until then stays as it is.
 */
export function withinTime<T>(ms: number, work: () => T): T {
  const outer = context.work;
  context.work = work;
  try {
    return script.runInContext(context, { timeout: ms });
  } catch (cause) {
    // The engine's error is of the context's own kind, no `instanceof` knows it.
    if ((cause as { code?: unknown } | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw cause;
    throw new TimeLimitError(`it does not end within ${ms / 1000} s`, { cause });
  } finally {
    context.work = outer;
  }
}

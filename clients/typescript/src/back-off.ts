/** The pauses between attempts, and waits with a limit. */

/** The longest delay of a timer: 2³¹ − 1 ms. */
export const LONGEST = 2 ** 31 - 1;
const CAP = 30_000;

/** Full jitter: a random pause in ms that is never 0, below 1 s for the first attempt, then below 0.5 s · 2ⁿ. */
export function pause(attempt: number): number {
  return 1 + Math.random() * (attempt ? Math.min(CAP, 500 * 2 ** attempt) : 1000);
}

/** The seconds of `retry-after=` in the reason of a close, in ms. */
export function hint(reason: string): number | undefined {
  const found = /retry-after=(\d+(?:\.\d+)?)/.exec(reason);
  return found ? Math.min(LONGEST, 1000 * Number(found[1])) : undefined;
}

/** `setTimeout` that takes any number; not called for endless ones. */
export function later(ms: number, run: () => void): ReturnType<typeof setTimeout> | undefined {
  return ms === Infinity ? undefined : setTimeout(run, Math.min(LONGEST, Math.max(0, ms)));
}

/** The result of `work`, or a rejection after `ms`. */
export function within<T>(ms: number, work: () => T | PromiseLike<T>, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = later(ms, () => reject(new Error(`${what} has not ended within ${ms} ms`)));
    Promise.resolve()
      .then(work)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}

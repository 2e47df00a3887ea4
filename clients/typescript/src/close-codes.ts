/** What a client does after a close. */
export type AfterClose = "done" | "never" | "refresh" | "retry_after" | "back_off" | "application";

// <close-codes> written by `scripts/docs sync`
const CLOSE_CODES: Partial<Record<AfterClose, number[]>> = {
  done: [1000],
  back_off: [1001, 1005, 1006, 1011, 4500],
  never: [1002, 1003, 1007, 1008, 1009, 4400, 4403, 4404, 4405, 4409, 4410, 4426],
  retry_after: [1012, 1013, 4408, 4425, 4429, 4503],
  refresh: [4401],
};
const RANGES: [number, number, AfterClose][] = [
  [4400, 4499, "never"],
  [4500, 4599, "back_off"],
  [3000, 4999, "application"],
];

export function afterClose(code: number): AfterClose {
  for (const after in CLOSE_CODES) {
    if (CLOSE_CODES[after as AfterClose]!.includes(code)) return after as AfterClose;
  }
  return RANGES.find(([first, last]) => first <= code && code <= last)?.[2] ?? "back_off";
}
// </close-codes>

import { expect, test } from "vitest";
import { toBytes, toText } from "../src/webauthn";

test("bytes come back from their text, whatever they are", () => {
  for (const length of [0, 1, 2, 3, 31, 32, 33, 255]) {
    const bytes = Uint8Array.from({ length }, (_, place) => (place * 89 + 251) % 256);
    const text = toText(bytes.buffer);
    expect(text).toMatch(/^[A-Za-z0-9_-]*$/);
    expect(Array.from(toBytes(text))).toEqual(Array.from(bytes));
  }
});

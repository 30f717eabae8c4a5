import { expect, test } from "vitest";
import { startOf, wordsForCode } from "../src/providers";

test("a button leads to the provider's start, a connection says that it is one", () => {
  expect(startOf("google")).toBe("/api/v1/auth/oidc/google/start");
  expect(startOf("my_corp", true)).toBe("/api/v1/auth/oidc/my_corp/start?link=1");
});

test("a code in the address bar is said in words, and what is no code is not repeated", () => {
  expect(wordsForCode("link_needed")).toContain("connect the provider under Settings");
  for (const other of ["", "Your password is wanted at evil.example", "constructor", "__proto__"]) {
    expect(wordsForCode(other)).toBe("That did not work. Try again.");
  }
});

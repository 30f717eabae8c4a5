import { beforeEach, describe, expect, it, vi } from "vitest";

vi.stubGlobal("location", { pathname: "/" });
const kept = new Map<string, string>();
vi.stubGlobal("localStorage", {
  getItem: (key: string) => kept.get(key) ?? null,
  setItem: (key: string, value: string) => kept.set(key, value),
  removeItem: (key: string) => kept.delete(key),
});
const { canReturnTo, goAway, rememberPlace, takePlace, takePlaceAfterProvider } = await import(
  "../src/returning"
);

const CHAT = "/chat/01a22fe1-b4bb-71ef-bb2d-82f0ffb8bad0";

beforeEach(() => kept.clear());

describe("the page to return to", () => {
  it.each(["/", "/groups", "/vault", "/channels", CHAT])("can be our own page %s", (path) => {
    rememberPlace(path);
    expect(takePlace()).toBe(path);
    expect(takePlace()).toBe("/");
  });

  it.each([
    "//evil.example",
    "https://evil.example/",
    "/\\evil.example",
    "javascript:alert(1)",
    "/sign-in",
    "/api/v1/auth/logout",
    "/agent/gateway/",
    "/groups/../api",
    "groups",
    "",
    null,
    7,
  ])("is never %s", (path) => {
    expect(canReturnTo(path)).toBe(false);
    kept.set("ocmt.return", JSON.stringify({ path, at: Date.now() }));
    expect(takePlace()).toBe("/");
  });

  it("is forgotten after half an hour", () => {
    kept.set("ocmt.return", JSON.stringify({ path: "/vault", at: Date.now() - 31 * 60_000 }));
    expect(takePlace()).toBe("/");
  });

  it("survives what is no JSON", () => {
    kept.set("ocmt.return", "{");
    expect(takePlace()).toBe("/");
  });

  it("is taken at the first page only where a provider's sign-in comes back", () => {
    rememberPlace("/groups");
    expect(takePlaceAfterProvider()).toBeNull();
    goAway();
    expect(takePlaceAfterProvider()).toBe("/groups");
    expect(takePlaceAfterProvider()).toBeNull();
  });
});

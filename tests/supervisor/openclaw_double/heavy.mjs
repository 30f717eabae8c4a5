globalThis.loaded = (globalThis.loaded ?? 0) + 1;
export const early = { ...process.env };

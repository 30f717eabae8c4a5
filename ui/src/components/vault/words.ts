/** What the vault's items are called. */
import type { VaultItem } from "../../types";

export const KIND_WORDS: Record<VaultItem["kind"], string> = {
  provider_key: "Key of a model provider",
  token: "Token",
  note: "Note",
};

export const PROVIDER_KEYS = [
  { name: "anthropic_api_key", label: "Anthropic API key" },
  { name: "openai_api_key", label: "OpenAI API key" },
] as const;

export const labelOf = (name: string) => PROVIDER_KEYS.find((key) => key.name === name)?.label ?? name;

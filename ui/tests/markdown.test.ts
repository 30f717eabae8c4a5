import { describe, expect, test } from "vitest";
import { blocksOf, unsafeHtmlOf } from "../src/markdown";

const html = (text: string) => blocksOf(text).map(unsafeHtmlOf).join("");

// The sanitiser needs a browser and is tested there; here is what it is handed.
describe("an agent's Markdown", () => {
  test("shows HTML as text", () => {
    expect(html('<img src=x onerror="alert(1)"> and <b>bold</b>')).not.toMatch(/<img|<b>/);
    expect(html("<script>alert(1)</script>")).toContain("&#60;script&#62;");
  });

  test("loads no picture: it becomes a link", () => {
    const shown = html("![a cat](https://example.org/cat.png)");
    expect(shown).not.toContain("<img");
    expect(shown).toContain('href="https://example.org/cat.png"');
    expect(shown).toContain("[a cat]");
  });

  test("opens links elsewhere, and none that runs code", () => {
    expect(html("[site](https://example.org)")).toContain('target="_blank" rel="noopener noreferrer"');
    expect(html("[run](javascript:alert(1))")).toBe("<p>run</p>\n");
    expect(html("[run](data:text/html,hi)")).not.toContain("href");
  });

  test("a fence's language cannot leave its attribute", () => {
    expect(html('```py"onload=x\nprint()\n```')).toContain('class="language-py"');
  });

  test("what is complete keeps its source while the answer grows", () => {
    const text = "# Title\n\nFirst paragraph.\n\n```py\nprint(1)\n```\n\nThe end";
    const whole = blocksOf(text).map((block) => block.source);
    for (let length = 0; length < text.length; length++) {
      const partly = blocksOf(text.slice(0, length)).map((block) => block.source.trimEnd());
      const complete = partly.slice(0, -1);
      expect(complete).toEqual(whole.slice(0, complete.length).map((source) => source.trimEnd()));
    }
  });
});

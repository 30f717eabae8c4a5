/**
 * An agent's Markdown as safe HTML, block by block.
 *
 * What the agent writes is not trusted: HTML in it is shown as text, pictures become links (nothing is loaded from
 * elsewhere), links open elsewhere without a referrer, and DOMPurify goes over the result. An answer grows at its
 * end, so it is cut into blocks, and a block whose source did not change keeps its HTML.
 */
import DOMPurify from "dompurify";
import { Marked, type Token, type Tokens, type TokensList } from "marked";

const SAFE_ADDRESS = /^(?:https?:|mailto:)/i;

const ALLOWED_TAGS = (
  "p br hr strong em del code pre a ul ol li blockquote h1 h2 h3 h4 h5 h6 " +
  "table thead tbody tr th td input div span button"
).split(" ");
const ALLOWED_ATTR = [
  "href",
  "title",
  "target",
  "rel",
  "class",
  "align",
  "type",
  "checked",
  "disabled",
  "start",
];

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => (/^<br\s*\/?>\s*$/i.test(text) ? "<br>" : escapeHtml(text)),
    link({ href, title, tokens }) {
      const words = this.parser.parseInline(tokens);
      return SAFE_ADDRESS.test(href) ? anchor(href, words, title) : words;
    },
    image: ({ href, text, title }) => {
      const words = escapeHtml(text || title || "picture");
      return SAFE_ADDRESS.test(href) ? anchor(href, `[${words}]`, title) : words;
    },
    code: ({ text, lang }) => {
      const language = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0] ?? "";
      return (
        `<div class="code-block"><div class="code-head"><span>${escapeHtml(language || "text")}</span>` +
        `<button type="button" class="copy-code">Copy</button></div>` +
        `<pre><code class="language-${escapeHtml(language || "text")}">${escapeHtml(text)}\n</code></pre></div>`
      );
    },
    table({ header, rows }) {
      const head = header.map((cell) => this.tablecell(cell)).join("");
      const body = rows.map((row) => `<tr>${row.map((cell) => this.tablecell(cell)).join("")}</tr>`).join("");
      return `<div class="table-scroll"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
    },
  },
});

function anchor(href: string, words: string, title?: string | null): string {
  const hint = title ? ` title="${escapeHtml(title)}"` : "";
  return `<a href="${escapeHtml(href)}"${hint} target="_blank" rel="noopener noreferrer">${words}</a>`;
}

export interface Block {
  /** The Markdown that it was made of, and all that its HTML depends on. */
  source: string;
  token: Token;
  links: TokensList["links"];
}

/** The top-level blocks of a text, in order. */
export function blocksOf(text: string): Block[] {
  const tokens = marked.lexer(text);
  const definitions = Object.keys(tokens.links).length > 0 ? JSON.stringify(tokens.links) : "";
  return tokens
    .filter((token) => token.type !== "space" && token.type !== "def")
    .map((token) => ({ source: definitions + token.raw, token, links: tokens.links }));
}

/** HTML that may hold anything the agent wrote: for tests; pages use `htmlOf`. */
export function unsafeHtmlOf(block: Block): string {
  const tokens = [block.token] as unknown as TokensList;
  tokens.links = block.links;
  return marked.parser(tokens as Tokens.Generic[] as TokensList);
}

/** Safe HTML of one block. */
export function htmlOf(block: Block): string {
  return DOMPurify.sanitize(unsafeHtmlOf(block), {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ALLOWED_URI_REGEXP: SAFE_ADDRESS,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    // DOMPurify would hold these against the pattern of addresses, too.
    ADD_URI_SAFE_ATTR: ["target", "rel", "align", "type", "start"],
  });
}

/** Where the vendor sends what is said there. */
import { CopyButton } from "../CopyButton";

export const Address = ({ url }: { url: string }) => (
  <div class="address">
    <strong>The webhook's address</strong>
    <div>
      <code>{url}</code>
      <CopyButton text={url} label="the webhook's address" />
    </div>
  </div>
);

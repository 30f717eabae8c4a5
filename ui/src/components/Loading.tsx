/** Stands where something is being read for the first time. */
import { Spinner } from "./Icons";

export const Loading = () => (
  <p class="wait-line" role="status">
    <Spinner /> Loading…
  </p>
);

/** Deliveries as they are listed: those in one state or in all, the latest first, as many pages as were asked for. */
import { useState } from "preact/hooks";
import { inARow } from "../../channels";
import type { DeliveryState, Page } from "../../types";
import { type Shown, useShown } from "../attempt";

export interface DeliveryPages<T> extends Shown<Page<T>> {
  state: DeliveryState | null;
  /** Shows those in that state; null: all. */
  choose: (state: DeliveryState | null) => void;
  more: () => void;
}

/** `first`: the state that is chosen in the beginning. `of`: what `read` depends on, besides the state. */
export function useDeliveries<T>(
  read: (state: DeliveryState | null, cursor: string | null) => Promise<Page<T>>,
  first: DeliveryState | null,
  of: string,
): DeliveryPages<T> {
  const [state, setState] = useState(first);
  const [pages, setPages] = useState(1);
  const shown = useShown(() => inARow((cursor) => read(state, cursor), pages), state, pages, of);
  return {
    ...shown,
    state,
    choose: (chosen) => {
      setState(chosen);
      setPages(1);
    },
    more: () => setPages(pages + 1),
  };
}

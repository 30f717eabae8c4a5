/** A component that is drawn again only when one of its properties is another than before. */
import { Component, type ComponentChildren, h } from "preact";

export function memo<P extends object>(
  Drawn: (props: P) => ComponentChildren,
  same: (before: P, now: P) => boolean = shallowlyEqual,
) {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(now: Readonly<P>): boolean {
      return !same(this.props as P, now as P);
    }
    override render(): ComponentChildren {
      return h(Drawn as (props: object) => ComponentChildren, this.props);
    }
  };
}

function shallowlyEqual<P extends object>(before: P, now: P): boolean {
  const names = new Set([...Object.keys(before), ...Object.keys(now)]) as Set<keyof P>;
  return [...names].every((name) => Object.is(before[name], now[name]));
}

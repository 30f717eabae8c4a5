/** The administration: people, who may come in, what came in over channels, what was done. Auditors see it and change nothing. */
import { Deliveries } from "../components/admin/Deliveries";
import { Log } from "../components/admin/Log";
import { People } from "../components/admin/People";
import { SignUp } from "../components/admin/SignUp";
import { Rooms } from "../components/Rooms";
import { session } from "../session";

export function Admin() {
  const who = session.value.state === "signed-in" ? session.value.user : null;
  if (who === null || who.role === "user") {
    return (
      <Rooms>
        <p>Only administrators and auditors see this.</p>
      </Rooms>
    );
  }
  return (
    <Rooms>
      <People mayChange={who.is_admin} own={who.id} />
      <SignUp mayChange={who.is_admin} />
      <Deliveries mayReplay={who.is_admin} />
      <Log />
    </Rooms>
  );
}

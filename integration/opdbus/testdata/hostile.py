"""Sends N random calls to the daemon with libdbus: members that are and are not
there, wrong signatures, deep variants, long texts, odd names. Each must be
answered, by a reply or a D-Bus error. Prints how many of each came."""
import random, sys
import dbus, dbus.bus, dbus.lowlevel

conn = dbus.bus.BusConnection(sys.argv[1])
rnd = random.Random(int(sys.argv[3]))
NAME = "org.freedesktop.opdbus"
PATHS = ["/org/freedesktop/opdbus", "/", "/org", "/org/freedesktop/opdbus/x", "/" + "a" * 200]
IFACES = [NAME + "." + i for i in ("Manager", "Bus", "Approvals", "Policy", "Search", "Agents", "Journal", "Snapshots", "Nothing")] + [
    "org.freedesktop.DBus.Properties", "org.freedesktop.DBus.Introspectable", "org.freedesktop.DBus.ObjectManager", "org.freedesktop.DBus.Peer", None]
MEMBERS = ["GetStatus", "Query", "Verify", "Unresolved", "Call", "List", "Get", "Approve", "Deny", "Explain", "Search", "Ask", "Report", "Cancel", "Request", "Read", "Event", "Effective", "Set", "GetAll", "Introspect",
           "GetManagedObjects", "Ping", "GetMachineId", "Nothing", "x" * 255]
TEXTS = ["", "a", NAME, NAME + ".Manager", "LogSize", "org.freedesktop.DBus", "/", "[]", '["x"]', "{", "\u202e\x1b[31m", "a{sv}", "(" * 60, "ay" * 100,
         "x" * 70000, "\U0010ffff", "'; DROP", "../../etc/passwd", "0123456789abcdef"]
BASIC = "ybnqiuxtdsog"


def value(sig, depth=0):
    c = sig[0]
    if c == "y": return dbus.Byte(rnd.randrange(256))
    if c == "b": return dbus.Boolean(rnd.random() < .5)
    if c == "n": return dbus.Int16(rnd.randrange(-2**15, 2**15))
    if c == "q": return dbus.UInt16(rnd.randrange(2**16))
    if c == "i": return dbus.Int32(rnd.randrange(-2**31, 2**31))
    if c == "u": return dbus.UInt32(rnd.randrange(2**32))
    if c == "x": return dbus.Int64(rnd.randrange(-2**63, 2**63))
    if c == "t": return dbus.UInt64(rnd.randrange(2**64))
    if c == "d": return dbus.Double(rnd.choice([0.0, -0.0, float("nan"), float("inf"), 1e308]))
    if c == "s": return dbus.String(rnd.choice(TEXTS))
    if c == "o": return dbus.ObjectPath(rnd.choice(PATHS[:4]))
    if c == "g": return dbus.Signature(rnd.choice(["", "a{sv}", "(ii)", "aaaai"]))
    if c == "v":
        inner = "v" if depth < DEEP else rnd.choice(BASIC) if depth > 2 else rnd.choice(["as", "a{sv}", "(sv)", "s"])
        v = value(inner, depth + 1)
        if isinstance(v, (dbus.Array, dbus.Dictionary, dbus.Struct)):
            return type(v)(v, signature=v.signature, variant_level=1)
        return type(v)(v, variant_level=getattr(v, "variant_level", 0) + 1)
    if sig.startswith("a{"):
        k, v = sig[2], sig[3:-1]
        return dbus.Dictionary({value(k): value(v, depth + 1) for _ in range(rnd.randrange(4))}, signature=k + v)
    if c == "a":
        return dbus.Array([value(sig[1:], depth + 1) for _ in range(rnd.choice([0, 1, 3, 200]) if depth == 0 and len(sig) == 2 else rnd.randrange(3))], signature=sig[1:])
    return dbus.Struct([value(x, depth + 1) for x in parts(sig[1:-1])], signature=sig[1:-1])


def parts(sig):
    out = []
    for t in dbus.Signature(sig): out.append(str(t))
    return out


SIGS = ["", "s", "ss", "sss", "ssv", "a{sv}", "su", "sossss", "v", "as", "ay", "(sv)", "a(sv)", "a{us}", "h"[:0], "vvvv", "u", "o", "aas", "g"]
replies = errors = DEEP = 0
import time
for i in range(int(sys.argv[2])):
    m = dbus.lowlevel.MethodCallMessage(NAME, rnd.choice(PATHS) if rnd.random() < .3 else PATHS[0], rnd.choice(IFACES), rnd.choice(MEMBERS))
    sig = rnd.choice(SIGS)
    DEEP = rnd.choice([0, 0, 0, 5, 60])
    if sig:
        try:
            m.append(*[value(p) for p in parts(sig)], signature=sig)
        except (ValueError, TypeError):
            pass
    if rnd.random() < .05:
        m.set_no_reply(True)
        conn.send_message(m)
        continue
    try:
        conn.send_message_with_reply_and_block(m, 60)
        replies += 1
    except dbus.DBusException as e:
        if e.get_dbus_name() in ("org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected", "org.freedesktop.DBus.Error.ServiceUnknown"):
            print("no answer", i, e, flush=True)
            sys.exit(1)
        errors += 1
print("ready", replies, errors, flush=True)

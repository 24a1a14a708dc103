"""A peer that reads and writes with libdbus: Describe(v) -> s, Echo(v) -> v."""
import struct, sys
import dbus, dbus.service, dbus.bus
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

BASIC = {dbus.Byte: "y", dbus.Boolean: "b", dbus.Int16: "n", dbus.UInt16: "q", dbus.Int32: "i", dbus.UInt32: "u",
         dbus.Int64: "x", dbus.UInt64: "t", dbus.Double: "d", dbus.String: "s", dbus.ObjectPath: "o", dbus.Signature: "g"}


def parts(sig):
    return [str(s) for s in dbus.Signature(sig)]


def signature(v):
    if type(v) in BASIC:
        return BASIC[type(v)]
    if isinstance(v, dbus.Array):
        return "a" + str(v.signature)
    if isinstance(v, dbus.Dictionary):
        return "a{" + str(v.signature) + "}"
    if isinstance(v, dbus.Struct):
        return "(" + "".join("v" if getattr(x, "variant_level", 0) else signature(x) for x in v) + ")"
    raise TypeError(type(v))


def describe(v, sig):
    if sig == "v":
        return variant(v, v.variant_level)
    c = sig[0]
    if c == "b":
        return "true" if v else "false"
    if c in "ynqiuxt":
        return str(int(v))
    if c == "d":
        return struct.pack(">d", float(v)).hex()
    if c in "sog":
        return "'" + str(v).encode("utf-8").hex() + "'"
    if c == "(":
        return "(" + ",".join(describe(x, s) for x, s in zip(v, parts(sig[1:-1]))) + ")"
    if sig.startswith("a{"):
        k, e = parts(sig[2:-1])
        return "{" + ",".join(describe(a, k) + ":" + describe(b, e) for a, b in v.items()) + "}"
    return "[" + ",".join(describe(x, sig[1:]) for x in v) + "]"


def variant(v, level):
    if level > 1:
        return "<v " + variant(v, level - 1) + ">"
    s = signature(v)
    return "<" + s + " " + describe(v, s) + ">"


class Peer(dbus.service.Object):
    @dbus.service.method("org.example.Codec", in_signature="v", out_signature="s")
    def Describe(self, v):
        return variant(v, v.variant_level)

    @dbus.service.method("org.example.Codec", in_signature="v", out_signature="v")
    def Echo(self, v):
        return v


DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(sys.argv[1])
name = dbus.service.BusName("org.example.LibDBus", bus)
Peer(bus, "/org/example/Codec")
print("ready", flush=True)
GLib.MainLoop().run()

"""A peer that reads and writes with GLib: Describe(v) -> s, Echo(v) -> v."""
import struct, sys
from gi.repository import Gio, GLib

XML = """<node><interface name="org.example.Codec">
<method name="Describe"><arg type="v" direction="in"/><arg type="s" direction="out"/></method>
<method name="Echo"><arg type="v" direction="in"/><arg type="v" direction="out"/></method>
</interface></node>"""


def describe(v):
    t = v.get_type_string()
    kids = lambda: [v.get_child_value(i) for i in range(v.n_children())]
    if t == "v":
        inner = v.get_variant()
        return "<" + inner.get_type_string() + " " + describe(inner) + ">"
    if t == "b":
        return "true" if v.get_boolean() else "false"
    get = {"y": v.get_byte, "n": v.get_int16, "q": v.get_uint16, "i": v.get_int32, "u": v.get_uint32, "x": v.get_int64, "t": v.get_uint64}
    if t in get:
        return str(get[t]())
    if t == "d":
        return struct.pack(">d", v.get_double()).hex()
    if t in "sog":
        return "'" + v.get_string().encode("utf-8").hex() + "'"
    if t.startswith("("):
        return "(" + ",".join(describe(k) for k in kids()) + ")"
    if t.startswith("{"):
        return ":".join(describe(k) for k in kids())
    if t.startswith("a{"):
        return "{" + ",".join(describe(k) for k in kids()) + "}"
    return "[" + ",".join(describe(k) for k in kids()) + "]"


def call(conn, sender, path, iface, method, params, invocation):
    v = params.get_child_value(0)
    if method == "Describe":
        invocation.return_value(GLib.Variant("(s)", (describe(v),)))
    else:
        invocation.return_value(GLib.Variant.new_tuple(v))


conn = Gio.DBusConnection.new_for_address_sync(
    sys.argv[1], Gio.DBusConnectionFlags.AUTHENTICATION_CLIENT | Gio.DBusConnectionFlags.MESSAGE_BUS_CONNECTION, None, None)
conn.register_object("/org/example/Codec", Gio.DBusNodeInfo.new_for_xml(XML).interfaces[0], call, None, None)
Gio.bus_own_name_on_connection(conn, "org.example.GLib", Gio.BusNameOwnerFlags.NONE, lambda *a: print("ready", flush=True), None)
GLib.MainLoop().run()

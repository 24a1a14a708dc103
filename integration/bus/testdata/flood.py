"""Sends N signals with a number each, with libdbus; then says how long it took."""
import sys, time
import dbus, dbus.bus, dbus.lowlevel

conn = dbus.bus.BusConnection(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
began = time.time()
for i in range(int(sys.argv[2])):
    m = dbus.lowlevel.SignalMessage("/org/example/Flood", "org.example.Flood", "Tick")
    m.append(i, signature="u")
    conn.send_message(m)
    if i % 1000 == 0:
        conn.flush()
conn.flush()
m = dbus.lowlevel.SignalMessage("/org/example/Flood", "org.example.Flood", "End")
conn.send_message(m)
conn.flush()
# The bus answers: it has all before this.
conn.get_object("org.freedesktop.DBus", "/org/freedesktop/DBus").GetId(dbus_interface="org.freedesktop.DBus")
print("sent", time.time() - began, flush=True)

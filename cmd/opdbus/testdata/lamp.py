"""A service for tests: a lamp with a brightness, and what a service may do wrong."""
import sys, time
import dbus, dbus.service, dbus.bus
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

I = "org.example.Lamp"
XML = """<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">
<node><interface name="org.example.Lamp">
<annotation name="org.gtk.GDBus.DocString" value="A lamp."/>
<method name="Switch"><annotation name="org.gtk.GDBus.DocString" value="Switches it."/><arg name="on" type="b" direction="in"/><arg name="was" type="b" direction="out"/></method>
<method name="Blink"><arg name="times" type="t" direction="in"/><arg name="names" type="as" direction="in"/><arg type="a{sv}" direction="out"/></method>
<method name="Fail"/><method name="Sleep"><arg type="d" direction="in"/></method>
<method name="Old"><annotation name="org.freedesktop.DBus.Deprecated" value="true"/></method>
<method name="Connect"><arg name="settings" type="a{sv}" direction="in"/></method>
<method name="Descriptor"><arg type="h" direction="out"/></method>
<property name="Brightness" type="u" access="readwrite"/>
<property name="Name" type="s" access="read"><annotation name="org.freedesktop.DBus.Property.EmitsChangedSignal" value="const"/></property>
<signal name="Switched"><arg name="on" type="b"/></signal>
</interface></node>"""


class Lamp(dbus.service.Object):
    on, brightness = False, 10

    @dbus.service.method("org.freedesktop.DBus.Introspectable", out_signature="s")
    def Introspect(self):
        return XML

    @dbus.service.method(I, in_signature="b", out_signature="b")
    def Switch(self, on):
        was, self.on = self.on, bool(on)
        self.Switched(self.on)
        return was

    @dbus.service.method(I, in_signature="tas", out_signature="a{sv}")
    def Blink(self, times, names):
        return {"times": dbus.UInt64(times), "names": dbus.Array(names, signature="s")}

    @dbus.service.method(I)
    def Fail(self):
        raise dbus.DBusException("the bulb is broken", name="org.example.Lamp.Error.Broken")

    @dbus.service.method(I, in_signature="d")
    def Sleep(self, seconds):
        time.sleep(seconds)

    @dbus.service.method(I)
    def Old(self):
        pass

    @dbus.service.method(I, in_signature="a{sv}")
    def Connect(self, settings):
        pass

    @dbus.service.method(I, out_signature="h")
    def Descriptor(self):
        return dbus.types.UnixFd(0)

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="ss", out_signature="v")
    def Get(self, iface, prop):
        return self.GetAll(iface)[prop]

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="s", out_signature="a{sv}")
    def GetAll(self, iface):
        return {"Brightness": dbus.UInt32(self.brightness), "Name": "desk\x1b[31m lamp"}

    @dbus.service.method("org.freedesktop.DBus.Properties", in_signature="ssv")
    def Set(self, iface, prop, value):
        self.brightness = int(value)

    @dbus.service.signal(I, signature="b")
    def Switched(self, on):
        pass


DBusGMainLoop(set_as_default=True)
bus = dbus.bus.BusConnection(sys.argv[1])
name = dbus.service.BusName(I, bus)
Lamp(bus, "/org/example/Lamp")
print("ready", flush=True)
GLib.MainLoop().run()

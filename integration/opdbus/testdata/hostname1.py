"""A hostnamed for python-dbusmock."""
import dbus

BUS_NAME = 'org.freedesktop.hostname1'
MAIN_OBJ = '/org/freedesktop/hostname1'
MAIN_IFACE = 'org.freedesktop.hostname1'
SYSTEM_BUS = True


def load(mock, _parameters):
    mock.AddProperties(MAIN_IFACE, {'Hostname': 'old', 'StaticHostname': 'old', 'PrettyHostname': '', 'Deployment': '', 'Location': '', 'Chassis': 'vm'})


def setter(prop):
    def method(self, value, _interactive):
        self.UpdateProperties(MAIN_IFACE, {prop: value})
    method.__name__ = 'Set' + prop
    return dbus.service.method(MAIN_IFACE, in_signature='sb')(method)


SetStaticHostname = setter('StaticHostname')
SetPrettyHostname = setter('PrettyHostname')
SetDeployment = setter('Deployment')
SetLocation = setter('Location')

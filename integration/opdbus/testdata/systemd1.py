"""A service manager for python-dbusmock: units with files, jobs that end after
a while, and the signals of systemd's org.freedesktop.systemd1. AddUnit makes a
unit; SetJob says how the jobs of a unit end, and after how many milliseconds.
"""
import dbus
from dbusmock import MOCK_IFACE, mockobject
from gi.repository import GLib

BUS_NAME = 'org.freedesktop.systemd1'
MAIN_OBJ = '/org/freedesktop/systemd1'
MAIN_IFACE = 'org.freedesktop.systemd1.Manager'
UNIT_IFACE = 'org.freedesktop.systemd1.Unit'
SERVICE_IFACE = 'org.freedesktop.systemd1.Service'
SYSTEM_BUS = True


def load(mock, _parameters):
    mock.job = 0
    mock.jobs = {}
    mock.paths = {}
    mock.files = {}
    mock.ends = {}
    mock.reloads = 0
    mock.AddProperties(MAIN_IFACE, {'Version': '252'})


def error(name, text):
    return dbus.exceptions.DBusException(text, name='org.freedesktop.systemd1.' + name)


def escape(name):
    return ''.join(c if c.isalnum() else '_%02x' % ord(c) for c in name)


def unit(self, name):
    name = str(name)
    if name not in self.paths:
        path = MAIN_OBJ + '/unit/' + escape(name)
        self.paths[name] = path
        state = self.files.get(name, '')
        load_state = {'': 'not-found', 'masked': 'masked'}.get(state, 'loaded')
        self.AddObject(path, UNIT_IFACE, {
            'Id': name, 'Names': dbus.Array([name], signature='s'), 'LoadState': load_state, 'ActiveState': 'inactive', 'SubState': 'dead',
            'UnitFileState': state, 'Transient': False}, [])
        obj = mockobject.objects[path]
        obj.AddProperties(SERVICE_IFACE, {'Type': 'oneshot' if name.startswith('once') else 'simple', 'RemainAfterExit': False})
    return mockobject.objects[self.paths[name]]


def set_file(self, name, state):
    self.files[str(name)] = state
    self.EmitSignal(MAIN_IFACE, 'UnitFilesChanged', '', [])


def start_job(self, name, kind):
    if str(name) not in self.files:
        raise error('NoSuchUnit', 'Unit %s not found.' % name)
    self.job += 1
    number, path = self.job, MAIN_OBJ + '/job/%d' % self.job
    u = unit(self, name)
    result, after = self.ends.get(str(name), ('done', 0))
    if result != 'done' and kind == 'stop':
        result = 'done'
    self.jobs[number] = (str(name), kind, path, self.paths[str(name)])

    def end():
        del self.jobs[number]
        if result == 'done':
            active, sub = ('active', 'running') if kind == 'start' else ('inactive', 'dead')
        else:
            active, sub = 'failed', 'failed'
        u.UpdateProperties(UNIT_IFACE, {'ActiveState': active, 'SubState': sub})
        self.EmitSignal(MAIN_IFACE, 'JobRemoved', 'uoss', [dbus.UInt32(number), dbus.ObjectPath(path), name, result])
        return False

    self.EmitSignal(MAIN_IFACE, 'JobNew', 'uos', [dbus.UInt32(number), dbus.ObjectPath(path), name])
    GLib.timeout_add(after, end) if after else GLib.idle_add(end)
    return dbus.ObjectPath(path)


@dbus.service.method(MAIN_IFACE, in_signature='ss', out_signature='o')
def StartUnit(self, name, _mode):
    if self.files.get(str(name)) == 'masked':
        raise error('UnitMasked', 'Unit %s is masked.' % name)
    return start_job(self, name, 'start')


@dbus.service.method(MAIN_IFACE, in_signature='ss', out_signature='o')
def StopUnit(self, name, _mode):
    return start_job(self, name, 'stop')


@dbus.service.method(MAIN_IFACE, in_signature='s', out_signature='o')
def LoadUnit(self, name):
    unit(self, name)
    return dbus.ObjectPath(self.paths[str(name)])


@dbus.service.method(MAIN_IFACE, in_signature='s', out_signature='o')
def GetUnit(self, name):
    return LoadUnit(self, name)


@dbus.service.method(MAIN_IFACE, in_signature='s', out_signature='s')
def GetUnitFileState(self, name):
    if not self.files.get(str(name)):
        raise dbus.exceptions.DBusException('No such file', name='org.freedesktop.DBus.Error.FileNotFound')
    return self.files[str(name)]


@dbus.service.method(MAIN_IFACE, in_signature='', out_signature='a(ss)')
def ListUnitFiles(self):
    return dbus.Array([('/lib/systemd/system/' + n, s) for n, s in sorted(self.files.items()) if s], signature='(ss)')


@dbus.service.method(MAIN_IFACE, in_signature='', out_signature='a(usssoo)')
def ListJobs(self):
    return dbus.Array([(dbus.UInt32(n), u, k, 'running', dbus.ObjectPath(p), dbus.ObjectPath(o)) for n, (u, k, p, o) in self.jobs.items()], signature='(usssoo)')


@dbus.service.method(MAIN_IFACE, in_signature='', out_signature='')
def Subscribe(self):
    pass


@dbus.service.method(MAIN_IFACE, in_signature='', out_signature='')
def Reload(self):
    self.reloads += 1
    for name, path in self.paths.items():
        state = self.files.get(name, '')
        load_state = {'': 'not-found', 'masked': 'masked'}.get(state, 'loaded')
        mockobject.objects[path].UpdateProperties(UNIT_IFACE, {'LoadState': load_state, 'UnitFileState': state})


@dbus.service.method(MAIN_IFACE, in_signature='asbb', out_signature='ba(sss)')
def EnableUnitFiles(self, names, _runtime, _force):
    for n in names:
        if self.files.get(str(n)) == 'masked':
            raise error('UnitMasked', 'Unit file %s is masked.' % n)
        set_file(self, n, 'enabled')
    return True, dbus.Array([], signature='(sss)')


@dbus.service.method(MAIN_IFACE, in_signature='asb', out_signature='a(sss)')
def DisableUnitFiles(self, names, _runtime):
    for n in names:
        set_file(self, n, 'disabled')
    return dbus.Array([], signature='(sss)')


@dbus.service.method(MAIN_IFACE, in_signature='asbb', out_signature='a(sss)')
def MaskUnitFiles(self, names, _runtime, _force):
    for n in names:
        self.before = getattr(self, 'before', {})
        self.before[str(n)] = self.files.get(str(n), '')
        set_file(self, n, 'masked')
    return dbus.Array([], signature='(sss)')


@dbus.service.method(MAIN_IFACE, in_signature='asb', out_signature='a(sss)')
def UnmaskUnitFiles(self, names, _runtime):
    for n in names:
        set_file(self, n, getattr(self, 'before', {}).get(str(n), 'disabled'))
    return dbus.Array([], signature='(sss)')


@dbus.service.method(MOCK_IFACE, in_signature='sss')
def AddUnit(self, name, file_state, active):
    self.files[str(name)] = str(file_state)
    unit(self, name).UpdateProperties(UNIT_IFACE, {'ActiveState': active})


@dbus.service.method(MOCK_IFACE, in_signature='ssu')
def SetJob(self, name, result, milliseconds):
    self.ends[str(name)] = (str(result), int(milliseconds))


@dbus.service.method(MOCK_IFACE, in_signature='ss')
def SetActive(self, name, active):
    unit(self, name).UpdateProperties(UNIT_IFACE, {'ActiveState': active})


@dbus.service.method(MOCK_IFACE, in_signature='s')
def MakeTransient(self, name):
    unit(self, name).UpdateProperties(UNIT_IFACE, {'Transient': dbus.Boolean(True, variant_level=1)})


@dbus.service.method(MOCK_IFACE, in_signature='', out_signature='u')
def Reloads(self):
    return dbus.UInt32(self.reloads)

# What opdbus needs of the bus and of polkit, as files: path and text.
let
  name = "org.freedesktop.opdbus";
  note = "Generated from nix/opdbus.nix; make units writes it anew.";

  action = id: description: message: ''
    <action id="${name}.${id}">
      <description>${description}</description>
      <message>${message}</message>
      <defaults>
        <allow_any>auth_admin</allow_any>
        <allow_inactive>auth_admin</allow_inactive>
        <allow_active>auth_admin</allow_active>
      </defaults>
      <annotate key="org.freedesktop.policykit.owner">unix-user:root</annotate>
    </action>
  '';
in
{
  # Everybody may ask; the daemon decides, call by call.
  "dbus-1/system.d/${name}.conf" = ''
    <?xml version="1.0"?>
    <!-- ${note} -->
    <!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
     "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
    <busconfig>
      <policy user="root">
        <allow own="${name}"/>
      </policy>
      <policy context="default">
        <allow send_destination="${name}" send_interface="org.freedesktop.DBus.Introspectable"/>
        <allow send_destination="${name}" send_interface="org.freedesktop.DBus.Peer"/>
        <allow send_destination="${name}" send_interface="org.freedesktop.DBus.Properties"/>
        <allow send_destination="${name}" send_interface="org.freedesktop.DBus.ObjectManager"/>
        <allow send_destination="${name}" send_interface="${name}.Manager"/>
        <allow send_destination="${name}" send_interface="${name}.Bus"/>
        <allow send_destination="${name}" send_interface="${name}.Approvals"/>
        <allow send_destination="${name}" send_interface="${name}.Logins"/>
        <allow send_destination="${name}" send_interface="${name}.Network"/>
        <allow send_destination="${name}" send_interface="${name}.Policy"/>
        <allow send_destination="${name}" send_interface="${name}.Search"/>
        <allow send_destination="${name}" send_interface="${name}.Network.OpenFlow"/>
        <allow send_destination="${name}" send_interface="${name}.Journal"/>
        <allow send_destination="${name}" send_interface="${name}.Snapshots"/>
        <allow send_destination="${name}" send_interface="${name}.Agents"/>
      </policy>
    </busconfig>
  '';

  "dbus-1/system-services/${name}.service" = ''
    # ${note}
    [D-BUS Service]
    Name=${name}
    Exec=/bin/false
    User=root
    SystemdService=op-dbus.service
  '';

  "polkit-1/actions/${name}.policy" =
    ''
      <?xml version="1.0" encoding="UTF-8"?>
      <!-- ${note} -->
      <!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
       "http://www.freedesktop.org/standards/PolicyKit/1.0/policyconfig.dtd">
      <policyconfig>
      <vendor>GhostBridge</vendor>
    ''
    + action "read-sensitive" "Read the log of changes and approvals" "Authentication is required to read the log of changes."
    + action "call" "Call a method of a service through GhostBridge" "Authentication is required to change this system through GhostBridge."
    + action "set-property" "Set a property of a service through GhostBridge" "Authentication is required to change this system through GhostBridge."
    + action "apply-state" "Bring this host to a desired state" "Authentication is required to change the state of this system."
    + action "rollback" "Take back, or confirm, a change of this host's state" "Authentication is required to take back a change of this system."
    + action "network" "Change the flows of the host's bridges" "Authentication is required to change how the network is switched."
    + action "tokens" "Let an AI agent in, or take its token away" "Authentication is required to change which AI agents are let in."
    + action "approve" "Approve a change that somebody else asked for" "Authentication is required to approve a change."
    + ''
      </policyconfig>
    '';
}

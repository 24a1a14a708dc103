# D-Bus for people, programs and AI agents: the daemon that asks the policy and
# polkit and records before it acts, the recorder of the bus, the MCP server and
# the web interface.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  gb = config.services.ghostbridge;
  cfg = gb.dbus;
  inherit (lib) mkOption types;

  policy = pkgs.writeText "policy.json" (builtins.toJSON cfg.policy);
in
{
  imports = [ ./ghostbridge.nix ];

  options.services.ghostbridge.dbus = {
    enable = lib.mkEnableOption "op-dbus, through which changes of this host go, and the recorder of the system bus";

    policy = mkOption {
      type = types.nullOr types.attrs;
      default = null;
      example = lib.literalExpression "builtins.fromJSON (builtins.readFile ./policy.json)";
      description = ''
        What op-dbus lets whom change, as /etc/ghostbridge/policy.json has it
        (man opdbus). null: nothing may be changed through it.
      '';
    };

    mcp.enable = lib.mkEnableOption "the MCP server, by which AI agents look at this host and ask for changes";

    web = {
      enable = lib.mkEnableOption "the web interface on 127.0.0.1:8096";
      novncUrl = mkOption {
        type = types.nullOr types.str;
        default = null;
        description = "URL of the screens of virtual machines, to link to.";
      };
    };

    operators = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Users who may ask for changes in the web interface.";
    };
    approvers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Users who may approve what others ask for, in the web interface.";
    };
    readers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Users who may read the log and ask the index.";
    };
  };

  config = lib.mkIf (gb.enable && cfg.enable) {
    assertions = [
      {
        assertion = gb.storage.enable;
        message = "GhostBridge: dbus without storage: where a change can't be recorded, none is made";
      }
      {
        assertion = config.security.polkit.enable;
        message = "GhostBridge: without polkit nobody is authorised: security.polkit.enable = true";
      }
    ];

    security.polkit.enable = lib.mkDefault true;
    # Bus policy and activation; polkit finds its actions in systemPackages.
    services.dbus.packages = [ gb.package ];

    services.ghostbridge.units =
      [
        "op-dbus.service"
        "blockchain-dbus.service"
      ]
      ++ lib.optionals (!gb.network.enable) [
        # Through which op-dbus has bridges changed; it finds none.
        "ovs-switch.socket"
        "ovs-switch@.service"
      ]
      ++ lib.optionals cfg.mcp.enable [
        "dbus-mcp-server.socket"
        "dbus-mcp-server.service"
      ]
      ++ lib.optionals cfg.web.enable [
        "dbus-mcp-web.socket"
        "dbus-mcp-web.service"
      ];
    services.ghostbridge.settings = lib.optionalAttrs (cfg.web.novncUrl != null) { GB_NOVNC = cfg.web.novncUrl; };

    environment.etc = lib.mkIf (cfg.policy != null) { "ghostbridge/policy.json".source = policy; };
    systemd.services.op-dbus.restartTriggers = lib.optional (cfg.policy != null) policy;

    users.groups.gb-operators.members = cfg.operators;
    users.groups.gb-approvers.members = cfg.approvers;
    users.groups.ghostbridge.members = cfg.readers ++ cfg.operators ++ cfg.approvers;
  };
}

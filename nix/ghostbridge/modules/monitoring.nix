# Prometheus over every exporter, alert rules, and Grafana with both provisioned.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  gb = config.services.ghostbridge;
  cfg = gb.monitoring;
  inherit (lib) mkOption types;

  data = "${gb.package.packaging}/monitoring";
  metrics = "/var/lib/ghostbridge/metrics";
  target = port: [ { targets = [ "127.0.0.1:${toString port}" ]; } ];
in
{
  imports = [
    ./ghostbridge.nix
    ./ghostbridge-ovs.nix
    ./blockchain-storage.nix
    ./dbus-orchestrator.nix
  ];

  options.services.ghostbridge.monitoring = {
    enable = lib.mkEnableOption "Prometheus on 127.0.0.1:9090 and Grafana on 127.0.0.1:3000";
    retention = mkOption {
      type = types.strMatching "[0-9]+[dwy]";
      default = "30d";
      description = "How long Prometheus keeps what it has scraped.";
    };
    grafana = {
      enable = mkOption {
        type = types.bool;
        default = true;
        description = "Whether there is Grafana.";
      };
      secretKeyFile = mkOption {
        type = types.path;
        default = "/etc/ghostbridge/grafana-secret-key";
        description = "A file, readable by grafana and not in the Nix store, with the key that it signs with. INSTALL.md makes one.";
      };
    };
  };

  config = lib.mkIf (gb.enable && cfg.enable) {
    assertions = [
      {
        assertion = gb.dbus.enable && gb.dbus.web.enable;
        message = "GhostBridge: monitoring without services.ghostbridge.dbus.web, whose /metrics is about the log, the snapshots and the index";
      }
      {
        assertion = !lib.hasPrefix builtins.storeDir (toString cfg.grafana.secretKeyFile);
        message = "GhostBridge: Grafana's secret key is in the Nix store, where everybody can read it";
      }
    ];

    services.ghostbridge.settings = lib.optionalAttrs gb.network.enable { GB_OVS_METRICS = "${metrics}/ovs.prom"; };

    services.prometheus = {
      enable = true;
      listenAddress = "127.0.0.1";
      port = 9090;
      retentionTime = cfg.retention;
      globalConfig.scrape_interval = "15s";
      ruleFiles = [ "${data}/ghostbridge.rules.yml" ];
      scrapeConfigs =
        [
          {
            job_name = "prometheus";
            static_configs = target 9090;
          }
          {
            job_name = "ghostbridge";
            static_configs = target 8096;
          }
          {
            job_name = "node";
            static_configs = target 9100;
          }
        ]
        ++ lib.optional gb.storage.qdrant.enable {
          job_name = "qdrant";
          authorization.credentials_file = "/run/credentials/prometheus.service/qdrant-key";
          static_configs = target 6333;
        };
      exporters.node = {
        enable = true;
        listenAddress = "127.0.0.1";
        enabledCollectors = [ "systemd" ];
        extraFlags = [ "--collector.textfile.directory=${metrics}" ];
      };
      # Files that only this host has can't be looked at while its
      # configuration is built.
      checkConfig = "syntax-only";
    };
    systemd.services.prometheus.serviceConfig = lib.optionalAttrs gb.storage.qdrant.enable {
      LoadCredential = [ "qdrant-key:${toString gb.storage.qdrant.keyFile}" ];
    };

    services.grafana = lib.mkIf cfg.grafana.enable {
      enable = true;
      settings = {
        server = {
          http_addr = "127.0.0.1";
          http_port = 3000;
        };
        security.secret_key = "$__file{${toString cfg.grafana.secretKeyFile}}";
        analytics.reporting_enabled = false;
        analytics.check_for_updates = false;
      };
      provision = {
        enable = true;
        datasources.settings.datasources = [
          {
            name = "Prometheus";
            uid = "ghostbridge-prometheus";
            type = "prometheus";
            access = "proxy";
            url = "http://127.0.0.1:9090";
            isDefault = true;
          }
        ];
        dashboards.settings.providers = [
          {
            name = "GhostBridge";
            options.path = "${data}/dashboards";
          }
        ];
      };
    };
  };
}

#!/bin/sh
set -eu

export HOME=/var/lib/rabbitmq LANG=C.UTF-8
cat /etc/rabbitmq/conf.d/*.conf >"$HOME/rabbitmq.conf" 2>/dev/null || true
cat >>"$HOME/rabbitmq.conf" <<END
default_user = $RABBITMQ_DEFAULT_USER
default_pass = $RABBITMQ_DEFAULT_PASS
END
: >"$HOME/env.conf"
echo '[].' >"$HOME/enabled_plugins"
export RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_LOGS=- \
	RABBITMQ_CONF_ENV_FILE="$HOME/env.conf" RABBITMQ_CONFIG_FILE="$HOME/rabbitmq.conf" \
	RABBITMQ_ENABLED_PLUGINS_FILE="$HOME/enabled_plugins" \
	RABBITMQ_MNESIA_BASE="$HOME/mnesia" RABBITMQ_SCHEMA_DIR="$HOME/schema" \
	RABBITMQ_GENERATED_CONFIG_DIR="$HOME/config" RABBITMQ_PID_FILE="$HOME/pid"
exec /usr/lib/rabbitmq/bin/rabbitmq-server

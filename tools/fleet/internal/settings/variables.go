package settings

import (
	"fmt"
	"strings"
)

// Variable is one that says a setting.
type Variable struct {
	// Name of it, What it says, and Default, which holds where it isn't set; empty for none.
	Name, What, Default string
}

// Variables are all that there are: what Load knows, and what the help of `fleet plane up` and the README list.
var Variables = []Variable{
	{"A3_HOME", "directory of all state", ".a3"},
	{"A3_LISTEN", "address that the gateway listens on", "127.0.0.1"},
	{"A3_PORT", "port of it; aws: 443", "7443"},
	{"A3_DOMAIN", "name below which tenants have their hosts: https://<slug>.<domain>", defaultDomain},
	{"A3_TENANTS", "slugs of the tenants, separated by commas; aws: none", "acme,globex"},
	{"A3_TLS_CERT", "file with a certificate of your own for the gateway, PEM; without it one of a local authority", ""},
	{"A3_TLS_KEY", "file with its key, PEM", ""},
	{"A3_PLANE", "dev (a new plane's default), or prod: changes are planned and approved by a second operator; fixed when the plane is made", ""},
	{"A3_PLATFORM", "local (processes, a new plane's default), docker (containers, as root) or aws; a plane stays on the one it was made on", ""},
	{"A3_OPERATOR", "name of the operator who works, as fleet operator list shows it; without it the plane's first", ""},
	{"A3_OPERATOR_DIR", "directory of an operator whose key is their own, who works then; fleet operator request makes it", ""},
	{"A3_UNIX_TENANTS", "slugs of tenants that may discover this machine, or none; aws: none", "acme"},
	{"A3_BLUEPRINT", "file that describes another product than AccessOS; its program stands beside it, and the plane stays at it", ""},
	{"A3_PG_BIN", "bin directory of the PostgreSQL to use; without it the newest on the machine, else one that is fetched", ""},
	{"A3_CORS_ORIGINS", "browser origins other than their own host that may call every tenant, as https://app.example.com, separated by commas", ""},
	{"A3_LOG_LEVEL", "debug, info, warn or error", "info"},
	{"A3_TENANT_RATE", "requests of one tenant that begin in a second while others call; 0: 50 for each processor of the gateway", "0"},
	{"A3_RELEASE_KEYS", "public keys of releases that are trusted beside the plane's own, separated by commas", ""},
	{"A3_LICENCE_KEYS", "public keys of licences that are trusted beside the plane's own, separated by commas", ""},
	{"A3_BACKUP_DIR", "directory of backups, best on another disk; without it the one that the plane was brought up with, and for fleet plane up backups/ of the home", ""},
	{"A3_BACKUP_EVERY", "how often a running plane backs each set up and tries the backup out, or none", "24h"},
	{"A3_BACKUP_KEEP", "how many backups of a set are kept", "7"},
	{"A3_NETWORKS", "docker: where the plane's networks are cut from", "10.83.0.0/16"},
	{"A3_OUTSIDE_NETWORKS", "docker: private networks that every tenant's discovery may reach, separated by commas", ""},
	{"A3_AWS_REGION", "aws: Region that the tenants are in, as eu-central-1", ""},
	{"A3_AWS_SOURCE_IDENTITY", "aws: name under which fleet becomes the provisioner from the role that it is logged in as, machine for the machine's; empty where it is logged in as the provisioner", ""},
	{"A3_AWS_DATABASE_CA", "aws: file with the authorities of RDS's certificates, PEM", ""},
	{"A3_AWS_DATABASE_LOGIN", "aws: password, or token where components log in to their database by tokens of IAM", "password"},
}

// others belong to a3, whose user may be fleet's too.
var others = []string{"A3_PROFILE", "A3_WORKSPACE"}

// Help lists the variables, one a line.
func Help() string {
	var b strings.Builder
	for _, v := range Variables {
		fmt.Fprintf(&b, "  %-21s %s", v.Name, v.What)
		if v.Default != "" {
			fmt.Fprintf(&b, "; default %s", v.Default)
		}
		b.WriteByte('\n')
	}
	return strings.TrimSuffix(b.String(), "\n")
}

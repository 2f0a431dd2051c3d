package front

import (
	"bytes"
	"context"
	_ "embed" // haproxy.cfg
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/template"

	"a3os.app/libs/rpc"
)

// haproxyConfig is HAProxy with the gateway's duties.
//
//go:embed haproxy.cfg
var haproxyConfig string

// The gateway's rules for headers of requests (services/gateway/internal/proxy/headers.go).
var (
	identityPrefixes = []string{"x-forwarded", "x-tenant", "x-workspace", "x-a3-", "a3-", "x-original-", "x-rewrite-", "x-auth-", "x-authenticated-",
		"x-ssl-", "ssl-client", "x-client-", "x-amzn-oidc", "cf-", "x-envoy-", "x-host", "x-http-"}
	identityNames = []string{"forwarded", "x-real-ip", "x-real-host", "true-client-ip", "x-cluster-client-ip", "x-remote-user", "remote-user", "x-user", "x-user-id",
		"x-proxyuser-ip", "x-tid", "x-wid", "x-scope", "x-method-override", "proxy", "baggage", "client-cert", "client-cert-chain"}
)

// identityPattern is those as one regular expression: that is cheaper than a rule for each, and finds the spellings with underscores.
func identityPattern() string {
	pattern := "^(" + strings.Join(identityPrefixes, "|") + "|(" + strings.Join(identityNames, "|") + ")$)"
	return strings.ReplaceAll(pattern, "-", "[-_]")
}

func (w *world) haproxyCommand(ctx context.Context, program string) (*exec.Cmd, error) {
	text, err := template.New("haproxy.cfg").Option("missingkey=error").Parse(haproxyConfig)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(w.file("hosts"), []byte(host+" "+w.identity.Tenant.String()+"\n"), private); err != nil {
		return nil, err
	}
	const ofEachProcessor = 50 // as A3_TENANT_RATE is where nobody says
	var config bytes.Buffer
	if err := text.Execute(&config, map[string]any{
		"Listen": w.listen["haproxy"], "Certificate": w.file("web-both.pem"), "Hosts": w.file("hosts"), "Rate": ofEachProcessor * runtime.GOMAXPROCS(0),
		"Stripped": identityPattern(), "Source": rpc.SourceHeader,
		"Upstream": w.address, "Keypair": w.file("gateway/workload.pem"), "Roots": w.file(service + "-roots.pem"), "Name": w.identity.ServerName(),
	}); err != nil {
		return nil, err
	}
	file := w.file("haproxy.cfg")
	if err := os.WriteFile(file, config.Bytes(), private); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "-db", "-f", file) //nolint:gosec // found on this machine, told what stands above
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd, nil
}

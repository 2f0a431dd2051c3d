package aws_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"a3os.app/libs/ministacktest"
	"a3os.app/tools/fleet/internal/platform/aws/awstest"
)

// plane is a plane whose tenants are at AWS, driven by the program as an operator drives it.
type plane struct {
	t         *testing.T
	bin, home string
	environ   []string
}

func newPlane(t *testing.T, server *ministacktest.Server, tenants string) *plane {
	t.Helper()
	p := &plane{t: t, bin: os.Getenv("A3_BIN"), home: filepath.Join(t.TempDir(), "home")}
	if p.bin == "" {
		p.bin = filepath.Join(t.TempDir(), "bin")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", p.bin+string(filepath.Separator), "a3os.app/services/accessos", "a3os.app/tools/fleet")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	cfg := awstest.Provisioner(t, server)
	keys, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.environ = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "A3_") || strings.HasPrefix(kv, "AWS_") })
	p.environ = append(p.environ, "A3_HOME="+p.home, "A3_PLATFORM=aws", "A3_AWS_REGION="+ministacktest.Region, "A3_AWS_PLANE_ADDRESS="+hubAddress, "A3_AWS_STORES=machine",
		"A3_DOMAIN="+awstest.Place.Domain, "A3_PORT=443", "A3_TENANTS="+tenants, "A3_UNIX_TENANTS=none",
		"AWS_ENDPOINT_URL="+server.URL, "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent",
		"AWS_ACCESS_KEY_ID="+keys.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+keys.SecretAccessKey, "AWS_SESSION_TOKEN="+keys.SessionToken)
	t.Cleanup(func() {
		if out, err := p.command("plane", "down").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return p
}

// command outlives the test's context: the plane is taken down after that has ended.
func (p *plane) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, "fleet"), args...) //nolint:noctx // see above
	cmd.Env = p.environ
	return cmd
}

func (p *plane) fleet(args ...string) string {
	p.t.Helper()
	out, err := p.command(args...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("fleet %v: %v: %s", args, err, out)
	}
	return string(out)
}

// Two tenants are brought up as tasks of ECS on an emulator, each in its own stack.
func TestStoryOfAFleetOnAWS(t *testing.T) {
	server := account(t)
	p := newPlane(t, server, "acme,globex")
	t.Log(p.fleet("plane", "up"))
}

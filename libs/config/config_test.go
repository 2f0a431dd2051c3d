package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/config"
	"a3os.app/libs/id"
)

type roleConfig struct {
	Database config.Secret `env:"DATABASE_URL" desc:"connection string of this service's own role"`
	Tenant   id.Tenant     `env:"TENANT" desc:"tenant this set serves"`
	Poll     time.Duration `env:"POLL" envDefault:"2s" desc:"pause between polls"`
	Origins  []string      `env:"ORIGINS" envDefault:"" desc:"browser origins that may call"`
	TLS      struct {
		Key  config.Secret `env:"KEY" envDefault:"" desc:"private key of the certificate"`
		Port int           `env:"PORT" envDefault:"0" desc:"port to listen on"`
	} `envPrefix:"TLS_"`
}

const canary = "c4nary-9f2b"

func TestConfigurationIsReadIntoItsFields(t *testing.T) {
	tenant := id.NewTenant()
	cfg, err := config.Load[roleConfig]("audit", []string{
		"PATH=/bin", "OTEL_SERVICE_NAME=x", "GOMEMLIMIT=64MiB", "a3_lower=1",
		"A3_DATABASE_URL=postgres://" + canary, "A3_TENANT=" + tenant.String(), "A3_ORIGINS=https://a,https://b", "A3_TLS_PORT=7", "A3_POLL=",
	})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database.Reveal() != "postgres://"+canary || cfg.Tenant != tenant || cfg.Poll != 2*time.Second || len(cfg.Origins) != 2 || cfg.TLS.Port != 7 {
		t.Errorf("read %+v", cfg)
	}
	if !cfg.TLS.Key.IsZero() {
		t.Error("a secret that was not given has a value")
	}
}

func TestFaultsAreAllToldAtOnceByName(t *testing.T) {
	tenant := "A3_TENANT=" + id.NewTenant().String()
	tests := map[string]struct {
		environ []string
		want    []string // each must stand in the error
	}{
		"all missing": {nil, []string{
			`role "audit"`, "A3_DATABASE_URL is missing: connection string of this service's own role", "A3_DATABASE_URL_FILE", "A3_TENANT is missing: tenant this set serves",
		}},
		"empty counts as missing":       {[]string{"A3_DATABASE_URL=", tenant}, []string{"A3_DATABASE_URL is missing"}},
		"another role's":                {[]string{"A3_DATABASE_URL=x", tenant, "A3_SIGNING_KEY=" + canary}, []string{`A3_SIGNING_KEY is not known to role "audit": it belongs to another role`}},
		"misspelt":                      {[]string{"A3_DATABSE_URL=" + canary, tenant}, []string{"A3_DATABSE_URL is not known", "did you mean A3_DATABASE_URL?", "A3_DATABASE_URL is missing"}},
		"misspelt inside":               {[]string{"A3_DATABASE_URL=x", tenant, "A3_TLS_PROT=1"}, []string{"did you mean A3_TLS_PORT?"}},
		"file of what is no secret":     {[]string{"A3_DATABASE_URL=x", "A3_TENANT_FILE=/x", tenant}, []string{"A3_TENANT_FILE is not known"}},
		"given twice":                   {[]string{"A3_DATABASE_URL=x", "A3_DATABASE_URL=" + canary, tenant}, []string{"A3_DATABASE_URL is given twice"}},
		"both value and file":           {[]string{"A3_DATABASE_URL=x", "A3_DATABASE_URL_FILE=/x", tenant}, []string{"both set"}},
		"wrong form":                    {[]string{"A3_DATABASE_URL=x", "A3_TENANT=wsp_01h455vb4pex5vsknk084sn02q", "A3_TLS_PORT=many"}, []string{"A3_TENANT can't be read", "A3_TLS_PORT can't be read", "port to listen on"}},
		"prefix alone":                  {[]string{"A3_=1", "A3_DATABASE_URL=x", tenant}, []string{"A3_ is not known"}},
		"no file there":                 {[]string{"A3_DATABASE_URL_FILE=/does/not/exist", tenant}, []string{"A3_DATABASE_URL_FILE can't be used: there is no file /does/not/exist"}},
		"directory in the file's place": {[]string{"A3_DATABASE_URL_FILE=/", tenant}, []string{"not a regular file"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cfg, err := config.Load[roleConfig]("audit", tc.environ)
			if err == nil {
				t.Fatalf("accepted, as %+v", cfg)
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q:\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("error repeats a value:\n%v", err)
			}
		})
	}
}

func TestSecretComesFromItsFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "url")
	environ := []string{"A3_DATABASE_URL_FILE=" + name, "A3_TENANT=" + id.NewTenant().String()}
	write := func(content string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}

	write(canary+"\n", 0o600)
	cfg, err := config.Load[roleConfig]("audit", environ)
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database.Reveal() != canary {
		t.Errorf("read %q", cfg.Database.Reveal())
	}

	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o610} {
		write(canary, mode)
		_, err := config.Load[roleConfig]("audit", environ)
		if err == nil || !strings.Contains(err.Error(), "open to others") || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), canary) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	write("", 0o600)
	if _, err := config.Load[roleConfig]("audit", environ); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: %v", err)
	}
	write(strings.Repeat("x", 64<<10+1), 0o600)
	if _, err := config.Load[roleConfig]("audit", environ); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("large file: %v", err)
	}
	if os.Geteuid() == 0 {
		write(canary, 0o600)
		if err := os.Chown(name, 4321, 4321); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load[roleConfig]("audit", environ); err == nil || !strings.Contains(err.Error(), "uid 4321") {
			t.Errorf("another user's file: %v", err)
		}
	}
}

func TestStructThatSaysTooLittleIsNoConfiguration(t *testing.T) {
	noDesc := func() error {
		_, err := config.Load[struct {
			A string `env:"A"`
		}]("r", nil)
		return err
	}
	noTag := func() error {
		_, err := config.Load[struct{ A string }]("r", nil)
		return err
	}
	twice := func() error {
		_, err := config.Load[struct {
			A string `env:"A" desc:"a"`
			B string `env:"A" desc:"b"`
		}]("r", nil)
		return err
	}
	option := func() error {
		_, err := config.Load[struct {
			A string `env:"A,unset" desc:"a"`
		}]("r", nil)
		return err
	}
	for name, f := range map[string]func() error{"no desc tag": noDesc, "no env tag": noTag, "both read A3_A": twice, "knows the option": option} {
		if err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

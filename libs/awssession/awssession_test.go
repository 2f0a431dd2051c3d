package awssession_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"a3os.app/libs/awssession"
	"a3os.app/libs/ministacktest"
)

// alone is an environment in which the SDK finds nothing but what a test sets.
func alone(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
}

// Keys that MiniStack takes for its root are among those that the product never uses.
func TestOnlySessionsOfRolesAreUsed(t *testing.T) {
	alone(t)
	for name, c := range map[string]struct{ key, token, want string }{
		"a session":                    {"ASIAEXAMPLE", "token", ""},
		"a long-lived key":             {"AKIAEXAMPLE", "", "long-lived key"},
		"one with a token":             {"AKIAEXAMPLE", "token", "long-lived key"},
		"a session without its token":  {"ASIAEXAMPLE", "", "long-lived key"},
		"the emulator's root":          {"test", "", "long-lived key"},
		"that root with a token":       {"test", "token", "long-lived key"},
		"an account of the emulator's": {ministacktest.Account, "token", "long-lived key"},
		"nothing":                      {"", "", "find credentials of AWS"},
	} {
		t.Setenv("AWS_ACCESS_KEY_ID", c.key)
		t.Setenv("AWS_SECRET_ACCESS_KEY", c.key)
		t.Setenv("AWS_SESSION_TOKEN", c.token)
		_, err := awssession.Load(t.Context(), "eu-central-1", awssession.Of("prod"))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && c.key != "" && strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: the error has the key", name)
		}
		if errors.Is(err, awssession.ErrLongLived) != (c.want == "long-lived key") {
			t.Errorf("%s: %v is, or is not, of a long-lived key", name, err)
		}
	}
}

// What an emulator's root is told apart from is a role of the same emulator: a test that used its root by mistake would be seen.
func TestRolesOfTheEmulatorAreSessionsAndItsRootIsNone(t *testing.T) {
	server := ministacktest.Start(t)
	for want, cfg := range map[bool]aws.Config{true: server.Role(t, "somebody", ministacktest.Statement{Effect: "Allow", Action: []string{"s3:GetObject"}, Resource: []string{"*"}}), false: server.Root()} {
		got, err := cfg.Credentials.Retrieve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := awssession.Check(got); (err == nil) != want {
			t.Errorf("credentials that are a role's session (%t): %v", want, err)
		}
	}
}

func TestRegionAndTLSAreAskedFor(t *testing.T) {
	alone(t)
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "x"} {
		t.Setenv(name, value)
	}
	if _, err := awssession.Load(t.Context(), "", awssession.Of("prod")); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("without a Region: %v", err)
	}
	t.Setenv("AWS_REGION", "eu-west-1")
	if cfg, err := awssession.Load(t.Context(), "", awssession.Of("prod")); err != nil || cfg.Region != "eu-west-1" {
		t.Errorf("the environment's Region is %q, %v", cfg.Region, err)
	}
	for name, c := range map[string]struct {
		variable, value string
		plain           awssession.Plain
		good            bool
	}{
		"an emulator in dev":           {"AWS_ENDPOINT_URL", "http://127.0.0.1:4566", awssession.Of("dev"), true},
		"an emulator in prod":          {"AWS_ENDPOINT_URL", "http://127.0.0.1:4566", awssession.Of("prod"), false},
		"one service's, in prod":       {"AWS_ENDPOINT_URL_S3", "http://127.0.0.1:4566", awssession.Of("prod"), false},
		"an endpoint with TLS in prod": {"AWS_ENDPOINT_URL_S3", "https://s3.example", awssession.Of("prod"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(c.variable, c.value)
			if _, err := awssession.Load(t.Context(), "", c.plain); (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), c.variable) && !strings.Contains(err.Error(), "the configuration") {
				t.Error(err)
			}
		})
	}
}

func TestAnEnvironmentWithALongLivedKeyIsRefused(t *testing.T) {
	if err := awssession.RefuseKeys([]string{"A3_PLANE=prod", "AWS_ACCESS_KEY_ID=ASIAEXAMPLE", "X=AKIAEXAMPLE"}); err != nil {
		t.Error(err)
	}
	err := awssession.RefuseKeys([]string{"AWS_ACCESS_KEY_ID=AKIAEXAMPLE"})
	if !errors.Is(err, awssession.ErrLongLived) || strings.Contains(err.Error(), "AKIAEXAMPLE") || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("a long-lived key in the environment: %v", err)
	}
}

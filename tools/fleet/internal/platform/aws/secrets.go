package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// give has the secret of each component, and of what migrates the database, hold what its tasks are given, and nothing else. It answers the
// version of each.
func (t *tenant) give(ctx context.Context) (versions map[string]string, changed bool, err error) {
	client := secretsmanager.NewFromConfig(t.cfg)
	versions = map[string]string{}
	for component, keys := range stack.Given(t.input(stack.Input{})) {
		values := map[string]string{}
		for _, key := range keys {
			text, err := os.ReadFile(t.fileOf(component, key))
			if err != nil {
				return nil, changed, fmt.Errorf("read what %s of %s is given: %w", component, t.id, err)
			}
			if values[key], err = t.told(key, string(text)); err != nil {
				return nil, changed, err
			}
		}
		text, err := json.Marshal(values) // keys are in order
		if err != nil {
			return nil, changed, err
		}
		version, did, err := put(ctx, client, t.place.ComponentSecret(t.id, component), string(text))
		if changed = changed || did; err != nil {
			return nil, changed, err
		}
		versions[component] = version
	}
	return versions, changed, nil
}

// put has a secret hold a text, and answers the version that does; one that does already gets no new version.
func put(ctx context.Context, client *secretsmanager.Client, name, text string) (version string, changed bool, err error) {
	got, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	switch {
	case err == nil && sdk.ToString(got.SecretString) == text:
		return sdk.ToString(got.VersionId), false, nil
	case err != nil && !gone(err):
		return "", false, fmt.Errorf("look at secret %s: %w", name, err)
	}
	made, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &name, SecretString: &text})
	if err != nil {
		return "", false, fmt.Errorf("write secret %s: %w", name, err)
	}
	return sdk.ToString(made.VersionId), true, nil
}

// fileOf is the file of this machine with what a key of a component's secret holds.
func (t *tenant) fileOf(component, key string) string {
	files := t.Machine.Files(t.set)
	if role, is := strings.CutPrefix(key, "database-"); is {
		return files.URL(role)
	}
	if name, is := strings.CutPrefix(key, "key-"); is {
		return files.Key(name)
	}
	switch key {
	case stack.DatabaseRootsKey:
		return t.Settings.AWS.DatabaseCA
	case "plane-roots":
		return files.PlaneRoots()
	case "front-certificate":
		return files.Front().Certificate
	case "front-key":
		return files.Front().Key
	case "tenant-roots":
		return files.Roots()
	case "authority":
		if c, ok := t.set.Blueprint.Component(component); ok {
			return files.Authority(c)
		}
	}
	return filepath.Join(files.Certificate(component), "workload.pem")
}

// hasSecret says whether a secret is there; one that waits for its deletion is not.
func (t *tenant) hasSecret(ctx context.Context, name string) (bool, error) {
	got, err := secretsmanager.NewFromConfig(t.cfg).DescribeSecret(ctx, &secretsmanager.DescribeSecretInput{SecretId: &name})
	switch {
	case err == nil:
		return got.DeletedDate == nil, nil
	case gone(err):
		return false, nil
	}
	return false, fmt.Errorf("look for secret %s: %w", name, err)
}

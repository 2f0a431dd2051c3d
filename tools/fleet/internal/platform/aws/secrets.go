package aws

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// given is what became of the secrets of components.
type given struct {
	// versions of each, by component.
	versions map[string]string
	// over are the components whose secret holds more than they are given by the set's blueprint.
	over    []string
	changed bool
}

// give has the secret of each component, and of what migrates the database, or of those alone that are named, hold what its tasks are given, and nothing else
// but what it held that definitions of what runs name: ECS starts no task whose definition names a key that isn't there, and until the change of a stack came
// to its end a task of before may have to be started anew, and CloudFormation to go back to it.
func (t *tenant) give(ctx context.Context, components ...string) (out given, err error) {
	client := secretsmanager.NewFromConfig(t.cfg)
	named := sync.OnceValues(func() (map[string][]string, error) { return t.named(ctx) })
	out.versions = map[string]string{}
	for component, keys := range stack.Given(t.input(stack.Input{})) {
		if len(components) > 0 && !slices.Contains(components, component) {
			continue
		}
		values, err := t.values(component, keys)
		if err != nil {
			return out, err
		}
		name := t.place.ComponentSecret(t.id, component)
		is, version, err := held(ctx, client, name)
		if err != nil {
			return out, err
		}
		// Another version has a component of the plane's be started anew: what it needs no more goes with the next one.
		if t.set.Tenant.IsZero() && version != "" && holds(is, values) {
			out.versions[component] = version
			continue
		}
		all := maps.Clone(values)
		for key, text := range is {
			if _, given := values[key]; given {
				continue
			}
			still, err := named()
			if err != nil {
				return out, err
			}
			if slices.Contains(still[component], key) {
				all[key] = text
			}
		}
		if len(all) > len(values) {
			out.over = append(out.over, component)
		}
		if version == "" || !maps.Equal(is, all) {
			if version, err = put(ctx, client, name, all); err != nil {
				return out, err
			}
			out.changed = true
		}
		out.versions[component] = version
	}
	return out, nil
}

// takeBack has the secrets of components hold what their tasks are given, and nothing else.
func (t *tenant) takeBack(ctx context.Context, components []string) error {
	keys := stack.Given(t.input(stack.Input{}))
	for _, component := range components {
		values, err := t.values(component, keys[component])
		if err != nil {
			return err
		}
		if _, err := put(ctx, secretsmanager.NewFromConfig(t.cfg), t.place.ComponentSecret(t.id, component), values); err != nil {
			return err
		}
	}
	return nil
}

// values are what a component's tasks are given, by key.
func (t *tenant) values(component string, keys []string) (map[string]string, error) {
	values := map[string]string{}
	for _, key := range keys {
		text, err := os.ReadFile(t.fileOf(component, key))
		if err != nil {
			return nil, fmt.Errorf("read what %s of %s is given: %w", component, t.id, err)
		}
		if values[key], err = t.told(key, string(text)); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// named are the keys of each component's secret, and of what migrates, that definitions name which a task may be started by: the stack's, and those of what runs.
func (t *tenant) named(ctx context.Context) (map[string][]string, error) {
	told, err := t.outputs(ctx, t.stackName())
	if err != nil {
		return nil, err
	}
	services, err := t.services(ctx)
	if err != nil {
		return nil, err
	}
	definitions := map[string][]string{stack.Migration: {told[stack.MigrationOutput]}}
	for _, c := range t.set.Blueprint.Components {
		s := services[c.Name]
		of := []string{told[stack.TaskOutput(c.Name)], sdk.ToString(s.TaskDefinition)}
		for _, d := range s.Deployments {
			of = append(of, sdk.ToString(d.TaskDefinition))
		}
		slices.Sort(of)
		definitions[c.Name] = slices.Compact(of)
	}
	out := map[string][]string{}
	for component, all := range definitions {
		for _, definition := range all {
			if definition == "" {
				continue
			}
			got, err := ecs.NewFromConfig(t.cfg).DescribeTaskDefinition(ctx, &ecs.DescribeTaskDefinitionInput{TaskDefinition: &definition})
			if err != nil {
				return nil, fmt.Errorf("look at what %s of %s is given: %w", component, t.id, err)
			}
			for _, c := range got.TaskDefinition.ContainerDefinitions {
				for _, secret := range c.Secrets {
					// It ends with the key, a stage and a version, of which neither is said.
					from := strings.TrimSuffix(sdk.ToString(secret.ValueFrom), "::")
					out[component] = append(out[component], from[strings.LastIndex(from, ":")+1:])
				}
			}
		}
	}
	return out, nil
}

// held is what a secret holds, and the version that does; none where nothing was put there.
func held(ctx context.Context, client *secretsmanager.Client, name string) (values map[string]string, version string, err error) {
	got, err := client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
	if gone(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("look at secret %s: %w", name, err)
	}
	if json.Unmarshal([]byte(sdk.ToString(got.SecretString)), &values) != nil {
		return nil, "", nil //nolint:nilerr // somebody else put it there, and it is put right
	}
	return values, sdk.ToString(got.VersionId), nil
}

// holds says whether all values are among others.
func holds(among, values map[string]string) bool {
	for key, value := range values {
		if text, is := among[key]; !is || text != value {
			return false
		}
	}
	return true
}

// put has a secret hold values, and answers the version that does.
func put(ctx context.Context, client *secretsmanager.Client, name string, values map[string]string) (version string, err error) {
	text, err := json.Marshal(values) // keys are in order
	if err != nil {
		return "", err
	}
	made, err := client.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: &name, SecretString: sdk.String(string(text))})
	if err != nil {
		return "", fmt.Errorf("write secret %s: %w", name, err)
	}
	return sdk.ToString(made.VersionId), nil
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

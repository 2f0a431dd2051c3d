package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"a3os.app/libs/blob/s3"
	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/session"
)

// ownParameters are of the stack of the plane's own set, of which nothing is read by what doesn't run.
var ownParameters = map[string]string{"MarkKeys": "none", "LicenceKeys": "none", "ReleaseKeys": "none", "PublicKeySnapshot": "none"}

// ownSet makes the stack of the plane's own set as fleet plane up does.
func (r *run) ownSet(ctx context.Context) error {
	cfg, err := session.ForPlane(ctx, r.provisioner, r.place)
	if err != nil {
		return err
	}
	d, err := changeset.Open(ctx, cfg, r.where, r.place.Templates())
	if err != nil {
		return err
	}
	r.begins(r.place.ControlStack())
	p, err := d.Make(ctx, r.place.ControlStack(), r.templates[r.place.ControlStack()], ownParameters)
	if err != nil {
		return err
	}
	return d.Execute(ctx, p)
}

// copies is what a gateway's task does to the copy of its snapshot, with its role. S3 says of an object that isn't there that it is forbidden, to
// who may not list, so that whether the first may be written is known by writing it alone.
func (r *run) copies(ctx context.Context) error {
	const most = 100
	for _, c := range r.control.Components {
		if c.Needs.Copied == "" {
			continue
		}
		own, err := r.copyOf(ctx, c.Name, c.Name, c.Needs.Copied)
		if err != nil {
			return err
		}
		if _, _, err := own.Get(ctx, most); err == nil {
			return errors.New("something is there before the first was written")
		}
		var first string
		if err := r.patiently(ctx, rolesWithin, func() error {
			first, err = own.Replace(ctx, []byte("first"), "")
			return err
		}); err != nil {
			return fmt.Errorf("write the first: %w", err)
		}
		if _, err := own.Replace(ctx, []byte("another first"), ""); !errors.Is(err, s3.ErrReplaced) {
			return fmt.Errorf("a first one was written where there is one: %w", err)
		}
		if _, err := own.Replace(ctx, []byte("second"), first); err != nil {
			return fmt.Errorf("write the second in the place of the first: %w", err)
		}
		if _, err := own.Replace(ctx, []byte("third"), first); !errors.Is(err, s3.ErrReplaced) {
			return fmt.Errorf("what nobody saw was replaced: %w", err)
		}
		content, _, err := own.Get(ctx, most)
		if err != nil || string(content) != "second" {
			return fmt.Errorf("it reads %q: %w", content, err)
		}
		for _, other := range r.control.Components {
			if other.Name == c.Name {
				continue
			}
			o, err := r.copyOf(ctx, other.Name, c.Name, c.Needs.Copied)
			if err != nil {
				return err
			}
			if _, _, err := o.Get(ctx, most); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				return fmt.Errorf("%s reads the copy of %s: %w", other.Name, c.Name, err)
			}
		}
	}
	return nil
}

// copyOf is the object of a component's copy, with the role of the tasks of one. Tasks alone take it: the administrator has it be taken by
// themselves besides, until it is removed.
func (r *run) copyOf(ctx context.Context, as, of, copied string) (*s3.Object, error) {
	name := r.place.TaskRole("plane", as)
	trust, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "Principal": map[string]string{"AWS": r.Administrator},
		"Action": []string{"sts:AssumeRole", "sts:SetSourceIdentity"}}}})
	if err != nil {
		return nil, err
	}
	client := iam.NewFromConfig(r.Config)
	if _, err := client.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: aws.String(string(trust))}); err != nil {
		return nil, fmt.Errorf("take the role of %s: %w", as, err)
	}
	role, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return nil, err
	}
	cfg, err := r.as(ctx, aws.ToString(role.Role.Arn))
	if err != nil {
		return nil, err
	}
	return s3.OpenObject(cfg, "s3://"+r.place.Bucket("plane", "copies")+"/"+of+"/"+copied)
}

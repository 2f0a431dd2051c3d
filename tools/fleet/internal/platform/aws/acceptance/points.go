package acceptance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"a3os.app/tools/fleet/internal/platform/aws/changeset"
	"a3os.app/tools/fleet/internal/platform/aws/drift"
	"a3os.app/tools/fleet/internal/platform/aws/session"
	"a3os.app/tools/fleet/internal/platform/aws/stack"
)

// parameters of a tenant's stack, of which nothing is read by what doesn't run.
var parameters = map[string]string{"MarkKeys": "none", "LicenceKeys": "none", "PublicKeyEnvelope": "none", "PublicKeySecrets": "none"}

// prove makes everything and proves each point. It goes no further where the next points have nothing to stand on, or ctx ended.
func (r *run) prove(ctx context.Context) error {
	before := r.failed
	r.point(ctx, "the plane's stack is made as its administrators make it, first its bucket and from there the whole", func() error { return r.ground(ctx) })
	if r.failed > before {
		return errors.New("without the plane's stack nothing else can be made")
	}
	r.point(ctx, "an administrator becomes the provisioner, under a name", func() error { return r.become(ctx) })
	if r.failed > before {
		return errors.New("without the provisioner nothing else can be made")
	}
	r.point(ctx, "STS takes the policies of sessions for one tenant, and for the plane's own set", func() error { return r.packed(ctx) })
	r.point(ctx, "CloudFormation reads tenants' templates from the bucket as the provisioner, whose policy is enough to make both stacks", func() error { return r.deploy(ctx) })
	if r.failed > before {
		return errors.New("without two tenants' stacks nothing else can be proven")
	}
	r.point(ctx, "the provisioner makes registry and gateway in the session for them alone, by its policy", func() error { return r.ownSet(ctx) })
	r.point(ctx, "the gateway's role writes the first copy of its snapshot, and later ones in the place of what it saw alone; the registry's reads none", func() error { return r.copies(ctx) })
	r.point(ctx, "every role of a tenant is bounded", func() error { return r.bounded(ctx) })
	r.point(ctx, "what was just made is as its template has it, to CloudFormation's detection too", func() error { return r.same(ctx) })
	r.point(ctx, "a bucket that is opened by hand is named, and mended when asked", func() error { return r.mended(ctx) })
	r.point(ctx, "the provisioner takes no boundary away", func() error { return r.keepsBoundary(ctx) })
	return nil
}

// ground makes the plane's stack as its administrators do: first the bucket for templates, and from there the whole, which is larger than a call takes.
func (r *run) ground(ctx context.Context) error {
	parameters := map[string]string{"AdministratorRole": r.Administrator}
	if err := r.makeOf(ctx, "", r.first, parameters); err != nil {
		return err
	}
	parameters["S3PrefixList"] = r.PrefixList
	return r.makeOf(ctx, r.place.Templates(), r.templates[r.place.PlaneStack()], parameters)
}

// makeOf has the plane's stack be a template, which is read from a bucket where it is large.
func (r *run) makeOf(ctx context.Context, bucket string, template []byte, parameters map[string]string) error {
	d, err := changeset.Open(ctx, r.Config, r.where, bucket)
	if err != nil {
		return err
	}
	r.begins(r.place.PlaneStack())
	p, err := d.Make(ctx, r.place.PlaneStack(), template, parameters)
	if err != nil {
		return err
	}
	return d.Execute(ctx, p)
}

// How long what is new may be denied to whom it is for: a role until IAM knows it everywhere, and a key until its tag counts, by which the provisioner reaches it.
// https://docs.aws.amazon.com/kms/latest/developerguide/tag-authorization.html
const (
	rolesWithin = 2 * time.Minute
	tagsWithin  = 6 * time.Minute
)

// begins notes that a stack is made from now on: it may be there whatever the call that makes it answers.
func (r *run) begins(name string) {
	if !slices.Contains(r.begun, name) {
		r.begun = append(r.begun, name)
	}
}

func (r *run) become(ctx context.Context) (err error) {
	r.provisioner, err = r.as(ctx, r.place.Provisioner())
	return err
}

// as is a session of one of the plane's roles, which is waited for while it is new.
func (r *run) as(ctx context.Context, role string) (cfg aws.Config, err error) {
	err = r.patiently(ctx, rolesWithin, func() error {
		cfg, err = session.Under(ctx, r.Config, role, Plane)
		return err
	})
	if err != nil {
		return aws.Config{}, fmt.Errorf("take role %s under the name %s: %w", role, Plane, err)
	}
	return cfg, nil
}

// patiently does something until it isn't denied any more, for as long as what is new may be.
func (r *run) patiently(ctx context.Context, within time.Duration, do func() error) error {
	if r.Patience > 0 {
		within = r.Patience
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(min(within, 5*time.Second))
	defer tick.Stop()
	for {
		err := do()
		if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// packed takes the kinds of session that fleet works in, and tells how much of what STS packs a session's policies into each of them fills.
func (r *run) packed(ctx context.Context) error {
	tenant, tenantErr := stack.Session(r.place, r.tenants[0].String())
	plane, planeErr := stack.PlaneSession(r.place)
	if err := errors.Join(tenantErr, planeErr); err != nil {
		return err
	}
	for _, s := range []struct {
		of, policy string
		besides    []types.PolicyDescriptorType
	}{{"a tenant", tenant, []types.PolicyDescriptorType{{Arn: aws.String(r.place.SessionPolicy())}}}, {"the making of a tenant's stack", tenant, []types.PolicyDescriptorType{{Arn: aws.String(r.place.MakingPolicy())}}},
		{"the plane's own set", plane, nil}} {
		out, err := sts.NewFromConfig(r.provisioner).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String(r.place.Provisioner()), RoleSessionName: aws.String(Plane), Policy: &s.policy, PolicyArns: s.besides})
		if err != nil {
			return fmt.Errorf("take a session for %s, whose policy has %d characters: %w", s.of, len(s.policy), err)
		}
		r.say("        the policy of a session for %s has %d characters, and packed it fills %d %% of what STS takes", s.of, len(s.policy), aws.ToInt32(out.PackedPolicySize))
	}
	return nil
}

// deploy makes each tenant's stack as fleet does, in the session that works on that tenant alone.
func (r *run) deploy(ctx context.Context) error {
	for _, t := range r.tenants {
		cfg, err := session.MakingTenant(ctx, r.provisioner, r.place, t.String())
		if err != nil {
			return err
		}
		d, err := changeset.Open(ctx, cfg, r.where, r.place.Templates())
		if err != nil {
			return err
		}
		r.begins(r.stackOf(t))
		p, err := d.Make(ctx, r.stackOf(t), r.templates[r.stackOf(t)], parameters)
		if err != nil {
			return err
		}
		if err := d.Execute(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) bounded(ctx context.Context) error {
	client, seen := iam.NewFromConfig(r.Config), 0
	for _, t := range r.tenants {
		pages := iam.NewListRolesPaginator(client, &iam.ListRolesInput{PathPrefix: aws.String("/tenant/" + t.String() + "/")})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, listed := range page.Roles {
				// A list says nothing of boundaries.
				got, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: listed.RoleName})
				if err != nil {
					return err
				}
				if b := got.Role.PermissionsBoundary; b == nil || aws.ToString(b.PermissionsBoundaryArn) != r.place.Boundary() {
					return fmt.Errorf("role %s has not the boundary", aws.ToString(listed.RoleName))
				}
				seen++
			}
		}
	}
	if seen == 0 {
		return errors.New("there are no roles")
	}
	return nil
}

func (r *run) same(ctx context.Context) error {
	for _, t := range r.tenants {
		found, err := drift.Find(ctx, r.provisioner, r.stackOf(t), r.templates[r.stackOf(t)])
		if err != nil {
			return err
		}
		if len(found) > 0 {
			return fmt.Errorf("%d things of stack %s differ, the first: %s", len(found), r.stackOf(t), found[0].Reason)
		}
	}
	return nil
}

func (r *run) buckets(cfg aws.Config) *s3.Client {
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = cfg.BaseEndpoint != nil })
}

func (r *run) mended(ctx context.Context) error {
	name := r.stackOf(r.tenants[0])
	bucket := stack.BucketOf(r.place, r.tenants[0].String(), "objects")
	named := func() (int, error) {
		found, err := drift.Find(ctx, r.provisioner, name, r.templates[name])
		n := 0
		for _, f := range found {
			if strings.Contains(f.Reason, "the policy of bucket "+bucket) {
				n++
			}
		}
		return n, err
	}
	if _, err := r.buckets(r.provisioner).DeleteBucketPolicy(ctx, &s3.DeleteBucketPolicyInput{Bucket: &bucket}); err != nil {
		return err
	}
	if n, err := named(); err != nil || n != 1 {
		return errors.Join(err, fmt.Errorf("it is named %d times", n))
	}
	if changed, err := drift.Mend(ctx, r.provisioner, name, r.templates[name]); err != nil || !changed {
		return errors.Join(err, errors.New("it was not mended"))
	}
	if n, err := named(); err != nil || n != 0 {
		return errors.Join(err, fmt.Errorf("after it was mended it is named %d times", n))
	}
	return nil
}

func (r *run) keepsBoundary(ctx context.Context) error {
	role := r.tenants[0].String() + "-audit-task"
	_, err := iam.NewFromConfig(r.provisioner).DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &role})
	if err == nil {
		return errors.New("it did")
	}
	if !strings.Contains(err.Error(), "AccessDenied") {
		return err
	}
	return nil
}

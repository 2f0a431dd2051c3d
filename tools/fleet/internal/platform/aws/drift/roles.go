package drift

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"a3os.app/libs/clip"
	"a3os.app/tools/fleet/internal/platform"
)

// roles looks at what roles may.
type roles struct {
	*deployed
	client *iam.Client
}

func (l *roles) look(ctx context.Context, id string, r resource) ([]found, error) {
	name := fmt.Sprint(r.Properties["RoleName"])
	got, err := l.client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		return nil, err
	}
	all := l.policyOf(id, "whom role "+name+" lets in", r.Properties["AssumeRolePolicyDocument"], aws.ToString(got.Role.AssumeRolePolicyDocument), func(ctx context.Context, policy string) error {
		_, err := l.client.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: &policy})
		return err
	})
	all = append(all, l.bound(id, name, r, got.Role)...)
	own, err := l.own(ctx, id, name, r)
	if err != nil {
		return nil, err
	}
	attached, err := l.attached(ctx, id, name, r)
	return append(append(all, own...), attached...), err
}

// bound sees that the role has its boundary, and the tags that the boundary reads. The provisioner may put neither back, for who may could take
// them away.
func (l *roles) bound(id, name string, r resource, got *types.Role) []found {
	var all []found
	if want, is := l.value(r.Properties["PermissionsBoundary"]).(string); is {
		have := "none"
		if got.PermissionsBoundary != nil {
			have = aws.ToString(got.PermissionsBoundary.PermissionsBoundaryArn)
		}
		if have != want {
			all = append(all, found{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("the boundary of role %s is %s, and the release's is %s", name, have, want),
				Next: fmt.Sprintf("as an administrator: aws iam put-role-permissions-boundary --role-name %s --permissions-boundary %s", name, want)}})
		}
	}
	tags := map[string]string{}
	for _, t := range got.Tags {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	wanted, _ := l.value(r.Properties["Tags"]).([]any)
	for _, t := range wanted {
		tag, _ := t.(map[string]any)
		key, want := fmt.Sprint(tag["Key"]), fmt.Sprint(tag["Value"])
		if have := tags[key]; have != want {
			all = append(all, found{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("the tag %s of role %s is %q, and the release's is %q", key, name, have, want),
				Next: fmt.Sprintf("as an administrator: aws iam tag-role --role-name %s --tags Key=%s,Value=%s", name, key, want)}})
		}
	}
	return all
}

// own are the policies that stand in the role. One that only denies, as for a tenant that is suspended, gives nothing and isn't named.
func (l *roles) own(ctx context.Context, id, name string, r resource) ([]found, error) {
	wanted := map[string]any{}
	list, _ := r.Properties["Policies"].([]any)
	for _, p := range list {
		fields, _ := p.(map[string]any)
		wanted[fmt.Sprint(fields["PolicyName"])] = fields["PolicyDocument"]
	}
	var names []string
	pages := iam.NewListRolePoliciesPaginator(l.client, &iam.ListRolePoliciesInput{RoleName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, page.PolicyNames...)
	}
	var all []found
	for policy, document := range sorted(wanted) {
		have := ""
		if slices.Contains(names, policy) {
			got, err := l.client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
			if err != nil {
				return nil, err
			}
			have = aws.ToString(got.PolicyDocument)
		}
		all = append(all, l.policyOf(id, "what role "+name+" may", document, have, func(ctx context.Context, text string) error {
			_, err := l.client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: &policy, PolicyDocument: &text})
			return err
		})...)
	}
	for _, policy := range names {
		if _, is := wanted[policy]; is {
			continue
		}
		got, err := l.client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
		if err != nil {
			return nil, err
		}
		if onlyDenies(aws.ToString(got.PolicyDocument)) {
			continue
		}
		read, err := parse(aws.ToString(got.PolicyDocument))
		if err != nil {
			return nil, err
		}
		all = append(all, found{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("role %s was given the policy %s, which isn't the release's: %s", name, policy, clip.Text(text(read), mostTold))},
			mend: func(ctx context.Context) error {
				_, err := l.client.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &policy})
				return err
			}})
	}
	return all, nil
}

// attached are policies that are kept elsewhere, of which a role of ours has none.
func (l *roles) attached(ctx context.Context, id, name string, r resource) ([]found, error) {
	wanted, _ := l.value(r.Properties["ManagedPolicyArns"]).([]any)
	var all []found
	pages := iam.NewListAttachedRolePoliciesPaginator(l.client, &iam.ListAttachedRolePoliciesInput{RoleName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.AttachedPolicies {
			arn := aws.ToString(p.PolicyArn)
			if slices.Contains(wanted, any(arn)) {
				continue
			}
			all = append(all, found{Difference: platform.Difference{Resource: id, Reason: fmt.Sprintf("role %s was given the policy %s, which is kept elsewhere", name, arn[strings.LastIndex(arn, "/")+1:]),
				Next: fmt.Sprintf("as an administrator: aws iam detach-role-policy --role-name %s --policy-arn %s", name, arn)}})
		}
	}
	return all, nil
}

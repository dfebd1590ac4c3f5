# The names a user can type.
if study.config.name not in ("all", *study.targets):

    rule:
        name:
            study.config.name
        localrule: True
        input:
            rules.all.input,


for target, (description, files) in study.targets.items():

    rule:
        name:
            target
        localrule: True
        input:
            files,


rule targets:
    localrule: True
    run:
        width = max(map(len, study.targets), default=0)
        print(f"{study.config.title}\n")
        print("\n".join(f"  {name:<{width}}  {text}" for name, (text, _) in study.targets.items()))

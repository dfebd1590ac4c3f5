# The names a user can type.
if study.config.name not in ("all", *study.targets):

    rule:
        name:
            study.config.name
        input:
            rules.all.input,
        localrule: True


for target, (description, files) in study.targets.items():

    rule:
        name:
            target
        input:
            files,
        localrule: True


rule targets:
    log:
        paths("logs/targets.log"),
    localrule: True
    run:
        print(study.target_list())

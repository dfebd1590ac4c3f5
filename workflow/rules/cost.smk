# What a target would cost: `snakemake cost` for the study, `snakemake cost_<target>` for one of its targets.
for target in [None, *study.targets]:

    rule:
        name:
            "cost" if target is None else f"cost_{target}"
        log:
            paths(f"logs/cost/{target or 'all'}.log"),
        localrule: True
        params:
            target=target,
        run:
            from stmorph.cost.show import cost_text

            print(cost_text(study, given, workflow, params.target))
